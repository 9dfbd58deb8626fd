"""Iterative pretraining (IPIP): a light potential that survives, from a teacher potential and few reference frames.

Cui et al., Iterative Pretraining Framework for Interatomic Potentials: a teacher explores by molecular dynamics and
labels what it meets, a student is pretrained on that and fine-tuned on the reference; the student's own molecular
dynamics shows where it fails; a part of the old frames is forgotten, the rest relabelled by the student, what is new
by the teacher, and the next round begins.
"""
