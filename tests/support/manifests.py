"""Minimal valid manifests for tests."""

from mmindex.store.manifest import Counts, IndexInfo, Manifest


def counts(indexed=0, **other):
    values = {
        "seen": indexed,
        "indexed": indexed,
        "quarantined": 0,
        "ignored": 0,
        "captions": 0,
        "unique_images": indexed,
        "unique_texts": 0,
    }
    return Counts(**{**values, **other})


def index_info(modality="image", n=0, dim=8, **other):
    values = {
        "modality": modality,
        "factory": "",
        "reason": "test",
        "n": n,
        "dim": dim,
        "seed": 0,
        "threads": 1,
        "faiss_version": "",
        "training_rows": 0,
        "nprobe": 1,
        "k_factor": 1,
        "recall_target": 0.95,
        "measured_recall": None,
    }
    return IndexInfo(**{**values, **other})


def manifest(**other):
    values = {
        "format": "1",
        "version": 1,
        "parent": None,
        "created_at": "2026-01-01T00:00:00+00:00",
        "run_id": "test",
        "mmindex": "0",
        "stages": (),
        "config": {},
        "corpus_fingerprint": "",
        "sources": (),
        "counts": counts(),
        "encoder": None,
        "indexes": {},
        "evaluation": None,
        "evaluation_inputs": "",
        "objects": (),
    }
    return Manifest(**{**values, **other})


def manifest_with_vectors(modality, n, dim, refs):
    return manifest(indexes={modality: index_info(modality, n, dim)}, objects=tuple(refs))
