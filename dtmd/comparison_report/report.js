"use strict";
/* Draws the figures of the report as SVG from the data in #figures. Colours are names of the style sheet, so that
   light, dark and print need no redrawing. Texts of the data only ever become text nodes. */
(() => {
  const MARGIN = { right: 20, top: 26, bottom: 42 };
  const ROW = 45; // pixels between the lines of the ordinate, about
  const NEAREST_LINES = 10; // of the box at the pointer
  const NEAR = 8; // pixels beyond its end at which a curve is still told of
  const SHARPNESS = 3; // pixels of a saved figure for one on the page
  const PAINTED = ["fill", "fill-opacity", "stroke", "stroke-width", "font-size", "paint-order"];
  const DRAG = 8; // pixels from which a movement is a selection

  function svg(parent, name, attributes = {}, text = null) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== null) node.textContent = text;
    parent.append(node);
    return node;
  }

  function html(parent, name, className = "", text = null) {
    const node = document.createElement(name);
    if (className) node.className = className;
    if (text !== null) node.textContent = text;
    parent.append(node);
    return node;
  }

  function format(value, digits = 4) {
    if (value === null || !Number.isFinite(value)) return "–";
    const size = Math.abs(value);
    const short = value !== 0 && (size >= 1e6 || size < 1e-4);
    const rounded = Number(value.toPrecision(digits));
    if (!short) return String(rounded).replace("-", "−");
    const [mantissa, exponent] = rounded.toExponential().split("e");
    const power = [...String(Number(exponent))].map((sign) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(sign)]).join("");
    return `${mantissa === "1" ? "" : `${mantissa.replace("-", "−")}·`}10${power}`;
  }

  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  /* A range of values on a range of pixels. */
  class Scale {
    constructor([low, high], log, from, to) {
      Object.assign(this, { low, high, log, from, to });
      this.span = log ? Math.log10(high / low) : high - low;
    }
    pixel(value) {
      const share = (this.log ? Math.log10(value / this.low) : value - this.low) / this.span;
      return this.from + share * (this.to - this.from);
    }
    value(pixel) {
      const share = (pixel - this.from) / (this.to - this.from);
      return this.log ? this.low * 10 ** (share * this.span) : this.low + share * this.span;
    }
    ticks(count) {
      if (this.log && this.span >= 1) return this.decades(count);
      const rough = (this.high - this.low) / count;
      const power = 10 ** Math.floor(Math.log10(rough));
      const step = power * [1, 2, 5, 10].find((factor) => factor * power >= 0.7 * rough);
      const ticks = [];
      for (let k = Math.ceil(this.low / step - 1e-9); k * step <= this.high + 1e-9 * step; k++) ticks.push(k * step);
      const digits = Math.max(4, Math.ceil(Math.log10(Math.max(Math.abs(this.low), Math.abs(this.high)) / step)) + 1);
      return ticks.map((value) => [value, format(value, digits)]);
    }
    decades(count) {
      const first = Math.ceil(Math.log10(this.low) - 1e-9), last = Math.floor(Math.log10(this.high) + 1e-9);
      const stride = Math.max(1, Math.ceil((last - first + 1) / count));
      const ticks = [];
      for (let k = first; k <= last; k += stride) ticks.push([10 ** k, format(10 ** k)]);
      return ticks;
    }
  }

  function extent(lists, log) {
    let low = Infinity, high = -Infinity;
    for (const values of lists)
      for (const value of values)
        if (value !== null && (!log || value > 0)) {
          if (value < low) low = value;
          if (value > high) high = value;
        }
    return low <= high ? [low, high] : log ? [0.1, 1] : [0, 1];
  }

  function widened([low, high], share) {
    const margin = share * (high - low) || 0.05 * Math.abs(high) || 1;
    return [low - margin, high + margin];
  }

  /* What all figures share: the stage, zoom by dragging, a box at the pointer, keys, the tools above. */
  class Chart {
    constructor(figure, spec, number) {
      Object.assign(this, { figure, spec, zoom: null, panels: [], cursor: null });
      this.clip = `clip-${number}`;
      this.small = figure.classList.contains("small");
      const caption = figure.querySelector("figcaption");
      const bar = html(figure, "div", "bar");
      this.legend = html(bar, "div", "legend");
      this.tools = html(bar, "div", "tools");
      this.button(this.tools, "CSV", () => this.save("csv", "text/csv", this.csv()), "Save the data as CSV");
      this.button(this.tools, "SVG", () => this.save("svg", "image/svg+xml", this.picture()), "Save the figure as SVG");
      this.button(this.tools, "PNG", () => this.savePixels(), "Save the figure as PNG");
      this.stage = html(figure, "div", "stage");
      this.root = svg(this.stage, "svg", { role: "img", tabindex: 0 });
      this.root.setAttribute("aria-label", `${spec.caption}: ${spec.yLabel} against ${spec.xLabel}. `
        + "Arrow keys read the values, plus and minus zoom, Escape shows everything.");
      this.reset = this.button(this.stage, "Show all", () => this.setZoom(null), "Show all of the figure");
      this.tip = html(this.stage, "div", "tip");
      this.tip.hidden = true;
      this.spoken = html(figure, "div", "hidden");
      this.spoken.setAttribute("aria-live", "polite");
      figure.append(caption);
      this.listen();
      this.dress();
      new ResizeObserver(() => this.resized()).observe(this.stage);
      this.resized();
    }
    button(parent, text, action, title) {
      const button = html(parent, "button", "", text);
      Object.assign(button, { type: "button", title });
      button.setAttribute("aria-label", title);
      button.addEventListener("click", action);
      return button;
    }
    resized() {
      const width = Math.round(this.stage.clientWidth);
      if (width > 0 && width !== this.width) {
        this.width = width;
        this.draw();
      }
    }
    draw() {
      this.root.replaceChildren();
      this.tip.hidden = true;
      this.height = this.layout();
      this.root.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
      this.panels.forEach((panel, k) => {
        this.axes(panel);
        const clip = svg(svg(this.root, "clipPath", { id: `${this.clip}-${k}` }), "rect");
        for (const key of ["x", "y", "width", "height"]) clip.setAttribute(key, panel[key]);
        this.content(panel, svg(this.root, "g", { "clip-path": `url(#${this.clip}-${k})` }));
      });
      this.over = svg(this.root, "g");
      this.reset.hidden = !this.zoom;
    }
    panel(x, y, width, height, rangeX, rangeY, log = false) {
      return { x, y, width, height, toX: new Scale(rangeX, false, x, x + width),
        toY: new Scale(rangeY, log, y + height, y) };
    }
    axes({ x, y, width, height, toX, toY }) {
      const bottom = y + height, grid = { stroke: "var(--grid)" };
      for (const [value, text] of toX.ticks(Math.max(2, width / 70))) {
        const at = toX.pixel(value);
        svg(this.root, "line", { x1: at, x2: at, y1: y, y2: bottom, ...grid });
        svg(this.root, "text", { x: at, y: bottom + 16, "text-anchor": "middle" }, text);
      }
      for (const [value, text] of toY.ticks(Math.max(2, height / ROW))) {
        const at = toY.pixel(value);
        svg(this.root, "line", { x1: x, x2: x + width, y1: at, y2: at, ...grid });
        svg(this.root, "text", { x: x - 7, y: at + 4, "text-anchor": "end" }, text);
      }
      svg(this.root, "path", { d: `M${x} ${y}V${bottom}H${x + width}`, fill: "none", stroke: "var(--axis)" });
      svg(this.root, "text", { class: "name", "text-anchor": "middle", x: x + width / 2, y: bottom + 35 },
        this.spec.xLabel);
      svg(this.root, "text", { class: "name", x: x - this.left + 4, y: y - 10 }, this.spec.yLabel);
    }
    /* Room for the numbers left of a panel. */
    gutter(range, log, height) {
      const lengths = new Scale(range, log, height, 0).ticks(Math.max(2, height / ROW)).map(([, text]) => text.length);
      return 18 + 6.8 * Math.max(1, ...lengths);
    }
    setZoom(zoom) {
      this.zoom = zoom;
      this.draw();
    }
    place(event) {
      const box = this.root.getBoundingClientRect(), scale = this.width / box.width;
      return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    }
    panelAt(x, y) {
      return this.panels.find((p) => x >= p.x - 4 && x <= p.x + p.width + 4 && y >= p.y - 4 && y <= p.y + p.height + 4);
    }
    listen() {
      let start = null;
      this.root.addEventListener("pointerdown", (event) => {
        const [x, y] = this.place(event), panel = this.panelAt(x, y);
        if (event.pointerType !== "touch" && event.button === 0 && panel) {
          start = { x, y, panel };
          this.root.setPointerCapture(event.pointerId);
        } else if (panel) this.point(panel, x, y);
      });
      this.root.addEventListener("pointermove", (event) => {
        const [x, y] = this.place(event), panel = this.panelAt(x, y);
        if (start) this.select(start, x, y);
        else if (panel) this.point(panel, x, y);
        else this.leave();
      });
      this.root.addEventListener("pointerup", (event) => {
        if (start) this.selected(start, ...this.place(event));
        start = null;
      });
      this.root.addEventListener("pointercancel", () => { start = null; this.leave(); });
      this.root.addEventListener("pointerleave", () => { if (!start) this.leave(); });
      this.root.addEventListener("blur", () => this.leave());
      this.root.addEventListener("dblclick", () => this.setZoom(null));
      this.root.addEventListener("keydown", (event) => this.key(event));
    }
    /* A selection that is flat, or narrow, zooms along one axis only. */
    area({ x, y, panel }, toX, toY) {
      const endX = clamp(toX, panel.x, panel.x + panel.width), endY = clamp(toY, panel.y, panel.y + panel.height);
      const startX = clamp(x, panel.x, panel.x + panel.width), startY = clamp(y, panel.y, panel.y + panel.height);
      const wide = Math.abs(endX - startX) >= DRAG, high = Math.abs(endY - startY) >= 2 * DRAG;
      const [left, right] = wide ? [Math.min(startX, endX), Math.max(startX, endX)] : [panel.x, panel.x + panel.width];
      const [top, bottom] = high ? [Math.min(startY, endY), Math.max(startY, endY)] : [panel.y, panel.y + panel.height];
      return wide || high ? { left, right, top, bottom } : null;
    }
    select(start, x, y) {
      this.leave();
      const area = this.area(start, x, y);
      if (area) svg(this.over, "rect", { x: area.left, y: area.top, width: area.right - area.left,
        height: area.bottom - area.top, fill: "var(--accent)", "fill-opacity": 0.15, stroke: "var(--accent)" });
    }
    selected(start, x, y) {
      const area = this.area(start, x, y), { toX, toY } = start.panel;
      this.leave();
      if (area) this.setZoom({ x: [toX.value(area.left), toX.value(area.right)],
        y: [toY.value(area.bottom), toY.value(area.top)] });
    }
    leave() {
      this.over.replaceChildren();
      this.tip.hidden = true;
    }
    key(event) {
      const panel = this.panels[0], step = event.shiftKey ? 40 : 6;
      const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
      const centre = this.cursor || [panel.x + panel.width / 2, panel.y + panel.height / 2];
      const at = [clamp(centre[0], panel.x, panel.x + panel.width), clamp(centre[1], panel.y, panel.y + panel.height)];
      if (event.key in moves) {
        const [dx, dy] = moves[event.key];
        this.point(panel, clamp(at[0] + dx, panel.x, panel.x + panel.width),
          clamp(at[1] + dy, panel.y, panel.y + panel.height));
        this.spoken.textContent = [...this.tip.children].map((line) => line.textContent).join("; ");
      } else if ("+=-".includes(event.key)) {
        const factor = event.key === "-" ? 2 : 0.5, { low, high } = panel.toX, middle = panel.toX.value(at[0]);
        const { x: [first, last] } = this.ranges(null), { y } = this.ranges(this.zoom);
        const left = Math.max(first, middle - factor * (middle - low));
        const x = [left, Math.min(last, middle + factor * (high - middle))];
        this.setZoom(x[0] <= first && x[1] >= last ? null : { x, y });
      } else if (event.key === "Escape") this.setZoom(null);
      else return;
      event.preventDefault();
    }
    tell(title, lines, x, y) {
      this.tip.replaceChildren();
      html(this.tip, "div", "at", title);
      for (const [colour, text] of lines) html(this.tip, "div", "", text).style.setProperty("--colour", colour);
      this.tip.hidden = false;
      const scale = this.stage.clientWidth / this.width, { offsetWidth: width, offsetHeight: height } = this.tip;
      const beside = x * scale + 14 + width > this.stage.clientWidth ? x * scale - 14 - width : x * scale + 14;
      this.tip.style.left = `${clamp(beside, 0, Math.max(0, this.stage.clientWidth - width))}px`;
      this.tip.style.top = `${clamp(y * scale - height - 10, -20, Math.max(0, this.stage.clientHeight - height))}px`;
    }
    csv() {
      const quoted = (value) => `"${String(value ?? "").replace(/"/g, '""')}"`;
      const lines = this.table().map((row) => row.map((v) => (typeof v === "number" ? v : quoted(v))).join(","));
      return lines.join("\r\n") + "\r\n";
    }
    /* The figure as it is seen, with the lines of its legend that are on, and with colours for names of colours. */
    picture() {
      this.leave();
      const copy = this.root.cloneNode(true), drawn = [...this.root.querySelectorAll("*")];
      copy.querySelectorAll("*").forEach((node, k) => {
        const style = getComputedStyle(drawn[k]);
        for (const name of PAINTED) node.setAttribute(name, style.getPropertyValue(name));
      });
      const { color, fontFamily } = getComputedStyle(this.figure), top = this.legend.offsetHeight + 8;
      const size = { width: this.width, height: this.height + top };
      for (const [key, value] of Object.entries({ ...size, viewBox: `0 ${-top} ${size.width} ${size.height}`,
        "font-family": fontFamily })) copy.setAttribute(key, value);
      const back = svg(copy, "rect", { ...size, y: -top, fill: getComputedStyle(this.figure).backgroundColor });
      copy.prepend(back);
      const corner = this.legend.getBoundingClientRect();
      for (const button of this.legend.querySelectorAll('[aria-pressed="true"]')) {
        const box = button.getBoundingClientRect(), line = button.querySelector("line");
        const x = box.left - corner.left + 2, y = box.top - corner.top + box.height / 2 - top + 4;
        svg(copy, "path", { d: `M${x} ${y}h20`, stroke: getComputedStyle(line).stroke,
          "stroke-width": line.getAttribute("stroke-width"),
          "stroke-dasharray": line.getAttribute("stroke-dasharray") });
        svg(copy, "text", { x: x + 26, y: y + 4, fill: color, "font-size": 12 }, button.textContent);
      }
      return new XMLSerializer().serializeToString(copy);
    }
    async savePixels() {
      const image = new Image(), canvas = document.createElement("canvas");
      image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(this.picture())}`;
      await image.decode();
      [canvas.width, canvas.height] = [SHARPNESS * image.width, SHARPNESS * image.height];
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => this.save("png", "image/png", blob));
    }
    save(suffix, type, content) {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([content], { type }));
      link.download = `${this.spec.name}.${suffix}`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    }
  }

  /* The AIMD is seen on both sides of a line that lies on it. */
  const lineWidth = (group) => (group.thin ? 1 : group.reference ? 3.4 : 1.8);

  class CurveChart extends Chart {
    dress() {
      this.shown = this.spec.groups.map(() => true);
      this.spec.groups.forEach((group, k) => {
        const button = html(this.legend, "button");
        button.type = "button";
        button.setAttribute("aria-pressed", "true");
        const sample = svg(button, "svg", { viewBox: "0 0 22 10", "aria-hidden": "true" });
        svg(sample, "line", { x1: 1, x2: 21, y1: 5, y2: 5, stroke: group.colour, "stroke-dasharray": group.dash,
          "stroke-width": lineWidth(group) });
        html(button, "span", "", group.label);
        button.addEventListener("click", () => {
          this.shown[k] = !this.shown[k];
          button.setAttribute("aria-pressed", String(this.shown[k]));
          this.draw();
        });
      });
    }
    visible() {
      const chosen = this.spec.groups.filter((_, k) => this.shown[k]);
      return chosen.length ? chosen : this.spec.groups;
    }
    /* All of x, also of curves that are switched off; y of those that are seen. */
    ranges(zoom) {
      if (zoom) return zoom;
      const { log, fromZero, horizontal } = this.spec;
      const x = extent(this.spec.groups.flatMap((group) => group.curves.map((curve) => curve.x)), false);
      // A band may come so near to zero that it would take up a logarithmic ordinate.
      const low = (curve) => (log ? [] : curve.low || []);
      const lists = this.visible().flatMap((group) => group.curves.flatMap((c) => [c.y, low(c), c.high || []]));
      const marks = horizontal.map(([, value]) => value).filter((value) => value !== null);
      const y = extent([...lists, marks], log);
      const values = this.visible().flatMap((group) => group.curves.map((curve) => curve.y));
      const zero = fromZero && extent(values, false)[0] >= 0; // a band alone may go below it
      return { x: x[0] < x[1] ? x : widened(x, 0), y: this.ordinate(y, log, zero) };
    }
    ordinate(y, log, zero) {
      if (log) return y[0] < y[1] ? [y[0] / 1.2, y[1] * 1.2] : [y[0] / 2, y[1] * 2];
      return zero ? [0, y[1] > 0 ? 1.05 * y[1] : 1] : widened(y, 0.05);
    }
    layout() {
      const height = Math.round(clamp(0.56 * this.width, this.small ? 200 : 250, 400));
      const { x, y } = this.ranges(this.zoom);
      const inner = height - MARGIN.top - MARGIN.bottom;
      this.left = this.gutter(y, this.spec.log, inner);
      this.panels = [this.panel(this.left, MARGIN.top, this.width - this.left - MARGIN.right, inner, x, y,
        this.spec.log)];
      return height;
    }
    content(panel, parent) {
      const order = [...this.spec.groups.keys()].filter((k) => this.shown[k]);
      order.sort((a, b) => this.spec.groups[b].thin - this.spec.groups[a].thin);
      const drawn = order.map((k) => this.spec.groups[k]);
      for (const { curves, colour } of drawn)
        for (const curve of curves) if (curve.low) this.band(panel, parent, curve, colour);
      for (const group of drawn) {
        const many = group.thin && group.curves.length > 8;
        for (const curve of group.curves)
          svg(parent, "path", { d: this.path(panel, curve.x, curve.y), fill: "none", stroke: group.colour,
            "stroke-width": lineWidth(group), "stroke-dasharray": group.dash, "stroke-linejoin": "round",
            "stroke-opacity": many ? 0.4 : group.thin ? 0.75 : 1 });
      }
      this.marks(panel, parent);
    }
    path({ toX, toY }, xs, ys) {
      let text = "", pen = false;
      for (let k = 0; k < xs.length; k++) {
        const drawn = xs[k] !== null && ys[k] !== null && (!toY.log || ys[k] > 0);
        if (drawn) text += `${pen ? "L" : "M"}${toX.pixel(xs[k]).toFixed(1)} ${toY.pixel(ys[k]).toFixed(1)}`;
        pen = drawn;
      }
      return text;
    }
    /* Stretches between gaps, each there and back; below a logarithmic ordinate the band goes on to its end. */
    band({ toX, toY }, parent, { x, low, high }, colour) {
      const floor = toY.log ? toY.low * 1e-3 : -Infinity;
      const point = (k, value) => `${toX.pixel(x[k]).toFixed(1)} ${toY.pixel(Math.max(value, floor)).toFixed(1)}`;
      let forth = [], back = [], text = "";
      for (let k = 0; k <= x.length; k++) {
        if (k < x.length && x[k] !== null && low[k] !== null && high[k] !== null) {
          forth.push(point(k, high[k]));
          back.push(point(k, low[k]));
        } else if (forth.length) {
          text += `M${[...forth, ...back.reverse()].join("L")}Z`;
          forth = [];
          back = [];
        }
      }
      svg(parent, "path", { d: text, fill: colour, "fill-opacity": 0.18 });
    }
    marks({ x, y, width, height, toX, toY }, parent) {
      const style = { stroke: "var(--soft)", "stroke-dasharray": "5 4" };
      for (const [label, value] of this.spec.horizontal) {
        if (value === null || (toY.log && value <= 0)) continue;
        const at = toY.pixel(value);
        svg(parent, "line", { x1: x, x2: x + width, y1: at, y2: at, ...style });
        svg(parent, "text", { class: "mark", "text-anchor": "end", x: x + width - 4,
          y: at < y + 16 ? at + 13 : at - 5 }, label);
      }
      for (const [label, value] of this.spec.vertical) {
        if (value === null) continue;
        const at = toX.pixel(value), left = at > x + width / 2;
        svg(parent, "line", { x1: at, x2: at, y1: y, y2: y + height, ...style });
        svg(parent, "text", { class: "mark", "text-anchor": left ? "end" : "start", x: at + (left ? -5 : 5),
          y: y + 12 }, label);
      }
    }
    /* The point of each line in the legend that is nearest to the pointer; of runs, that of the nearest run. Curves
       that have ended before the pointer, or begin after it, are not among them. */
    nearest(panel, px, py) {
      const found = [];
      const at = panel.toX.value(px);
      this.spec.groups.forEach((group, k) => {
        if (!this.shown[k]) return;
        let best = null;
        for (const curve of group.curves) {
          const i = closest(curve.x, at), last = curve.x.length - 1;
          if (i < 0 || curve.y[i] === null || curve.x[i] < panel.toX.low || curve.x[i] > panel.toX.high) continue;
          const x = panel.toX.pixel(curve.x[i]), y = panel.toY.pixel(curve.y[i]);
          const distance = Math.hypot(x - px, y - py), beyond = i === 0 ? x - px : i === last ? px - x : 0;
          if (beyond < NEAR && Number.isFinite(y) && (!best || distance < best.distance))
            best = { group, curve, i, x, y, distance };
        }
        if (best) found.push(best);
      });
      return found;
    }
    point(panel, px, py) {
      this.leave();
      this.cursor = [px, py];
      const found = this.nearest(panel, px, py);
      if (!found.length) return;
      const nearest = found.reduce((a, b) => (b.distance < a.distance ? b : a));
      const { x, y, height } = panel;
      svg(this.over, "line", { x1: nearest.x, x2: nearest.x, y1: y, y2: y + height, stroke: "var(--axis)" });
      const inner = svg(this.over, "g", { "clip-path": `url(#${this.clip}-0)` });
      for (const { group, curve, x: cx, y: cy } of found) {
        if (group.thin && group.curves.length > 1)
          svg(inner, "path", { d: this.path(panel, curve.x, curve.y), fill: "none", stroke: group.colour,
            "stroke-width": 2 });
        svg(inner, "circle", { cx, cy, r: 3.5, fill: group.colour, stroke: "var(--card)" });
      }
      const lines = found.slice(0, NEAREST_LINES).map(({ group, curve, i }) => {
        const known = curve.low && curve.low[i] !== null;
        const band = known ? ` (${format(curve.low[i], 3)} to ${format(curve.high[i], 3)})` : "";
        const name = curve.run && group.curves.length > 1 ? `${group.label}, ${curve.run}` : group.label;
        return [group.colour, `${name}: ${format(curve.y[i])}${band}`];
      });
      if (found.length > NEAREST_LINES) lines.push(["transparent", `and ${found.length - NEAREST_LINES} more`]);
      this.tell(`${this.spec.xLabel}: ${format(nearest.curve.x[nearest.i], 5)}`, lines, nearest.x, py);
    }
    table() {
      const rows = [["curve", "run", this.spec.xLabel, this.spec.yLabel, "low", "high"]];
      for (const { label, curves } of this.spec.groups)
        for (const { run, x, y, low, high } of curves)
          x.forEach((value, k) => rows.push([label, run, value, y[k], low ? low[k] : null, high ? high[k] : null]));
      return rows;
    }
  }

  /* The place in rising numbers that is nearest to a value; −1 where there are none. */
  function closest(values, value) {
    let low = 0, high = values.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (values[middle] <= value) low = middle;
      else high = middle;
    }
    return high > low && Math.abs(values[high] - value) < Math.abs(values[low] - value) ? high : high < 0 ? -1 : low;
  }

  /* Viridis at ten places; between them colours are mixed. */
  const VIRIDIS = [[68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142], [31, 158, 137],
    [53, 183, 121], [109, 205, 89], [180, 222, 44], [253, 231, 37]];

  function shade(share) {
    const at = clamp(share, 0, 1) * (VIRIDIS.length - 1), k = Math.min(VIRIDIS.length - 2, Math.floor(at));
    const mixed = VIRIDIS[k].map((value, c) => Math.round(value + (at - k) * (VIRIDIS[k + 1][c] - value)));
    return `rgb(${mixed.join(" ")})`;
  }

  /* One panel for each side; colours follow the square root of the density, so that rare places are seen. */
  class MapChart extends Chart {
    dress() {
      this.highest = extent(this.spec.panels.flatMap((panel) => panel.density), true)[1];
    }
    /* Above the panels, in the drawing, so that it is saved with them. */
    scale() {
      const steps = 40, x = 22, width = 3;
      svg(this.root, "text", { x: x - 6, y: 13, "text-anchor": "end" }, "0");
      for (let k = 0; k < steps; k++)
        svg(this.root, "rect", { x: x + k * width, y: 4, width: width + 0.5, height: 10,
          fill: shade(Math.sqrt((k + 0.5) / steps)) });
      svg(this.root, "text", { x: x + steps * width + 6, y: 13 }, `${format(this.highest, 2)}, density`);
    }
    draw() {
      super.draw();
      this.scale();
    }
    ranges(zoom) {
      const { x, y } = this.spec;
      return zoom || { x: [x[0], x[x.length - 1]], y: [y[0], y[y.length - 1]] };
    }
    layout() {
      const n = this.spec.panels.length, scale = 24, title = 42, { x, y } = this.ranges(this.zoom);
      const columns = clamp(Math.floor(this.width / 250), 1, n), share = this.width / columns;
      this.left = this.gutter(y, false, 200);
      const width = Math.min(420, share - this.left - MARGIN.right), height = Math.round(0.8 * width);
      const row = title + height + MARGIN.bottom + 6;
      this.panels = this.spec.panels.map((shown, k) => ({ shown, ...this.panel(this.left + (k % columns) * share,
        scale + title + Math.floor(k / columns) * row, width, height, x, y) }));
      return scale + Math.ceil(n / columns) * row;
    }
    content(panel, parent) {
      const { x, y } = this.spec, { shown, toX, toY, width, height } = panel, finer = 2;
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [finer * width, finer * height];
      const pen = canvas.getContext("2d");
      const across = x.map((value) => Math.round(finer * (toX.pixel(value) - panel.x)));
      const down = y.map((value) => Math.round(finer * (toY.pixel(value) - panel.y)));
      shown.density.forEach((column, i) => column.forEach((value, j) => {
        if (!(value > 0)) return;
        pen.fillStyle = shade(Math.sqrt(value / this.highest));
        pen.fillRect(across[i], down[j + 1], across[i + 1] - across[i], down[j] - down[j + 1]);
      }));
      svg(parent, "image", { href: canvas.toDataURL(), x: panel.x, y: panel.y, width, height });
      svg(this.root, "text", { class: "name side-name", x: panel.x - this.left + 4, y: panel.y - 28 }, shown.side);
    }
    point(panel, px, py) {
      this.leave();
      this.cursor = [px, py];
      const x = panel.toX.value(px), y = panel.toY.value(py);
      const bin = (edges, value) => clamp(edges.findIndex((edge) => edge > value) - 1, 0, edges.length - 2);
      const value = panel.shown.density[bin(this.spec.x, x)][bin(this.spec.y, y)];
      const place = `${this.spec.xLabel}: ${format(x, 3)}; ${this.spec.yLabel}: ${format(y, 3)}`;
      svg(this.over, "circle", { cx: px, cy: py, r: 4, fill: "none", stroke: "var(--text)" });
      this.tell(place, [["transparent", `${panel.shown.side}: ${format(value)}`]], px, py);
    }
    table() {
      const { x, y, panels, xLabel, yLabel } = this.spec, middle = (edges, k) => 0.5 * (edges[k] + edges[k + 1]);
      const rows = [["side", xLabel, yLabel, "density"]];
      for (const { side, density } of panels)
        density.forEach((column, i) => column.forEach((value, j) => {
          rows.push([side, middle(x, i), middle(y, j), value]);
        }));
      return rows;
    }
  }

  /* Light and dark: the rules for dark take effect always or never, whatever the system prefers. */
  function theme() {
    const button = document.getElementById("theme");
    const rules = [...document.styleSheets].flatMap((sheet) => [...sheet.cssRules])
      .filter((rule) => rule.media && rule.media.mediaText.includes("prefers-color-scheme"));
    let dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const label = () => { button.textContent = dark ? "Light" : "Dark"; };
    button.addEventListener("click", () => {
      dark = !dark;
      for (const rule of rules) rule.media.mediaText = dark ? "all" : "not all";
      document.documentElement.style.colorScheme = dark ? "dark" : "light";
      label();
    });
    label();
    button.hidden = false;
  }

  theme();
  const specs = JSON.parse(document.getElementById("figures").textContent);
  document.querySelectorAll("figure[data-figure]").forEach((figure, number) => {
    const spec = specs[Number(figure.dataset.figure)];
    new (spec.kind === "map" ? MapChart : CurveChart)(figure, spec, number);
  });
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((node) => { node.open = true; }));
})();
