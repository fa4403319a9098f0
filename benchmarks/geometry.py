"""How good a field's geometry is, and whether it knows where it is wrong: depth error and sparsification on the
reference views of a crowd's captures.

    python -m benchmarks.geometry --scene data/concert --field runs/field.safetensors --mesh runs/concert.glb
"""

import argparse
import time
from pathlib import Path

import torch

from benchmarks.conditions import conditions, finish, print_table
from crowdnerf_lab.captures.bundle import read_bundle
from crowdnerf_lab.captures.scenes import read_scene
from crowdnerf_lab.fields.storage import load_field, sh_grid_of
from crowdnerf_lab.geometry import OPAQUE, axial_depth, depth_error, mesh_of, read_depth, write_geometry
from crowdnerf_lab.training import fit
from crowdnerf_lab.uncertainty import gather_evidence, sparsification, uncertainty_of_view


def main() -> None:
    arguments = _arguments()
    captures = read_bundle(arguments.scene)
    scene = read_scene(arguments.scene, photos=arguments.photos)
    appearance = None
    if arguments.field is not None:
        field = sh_grid_of(load_field(arguments.field), arguments.field)
    else:
        fitted = fit(scene, seconds=arguments.seconds, seed=arguments.seed, threads=arguments.threads)
        field, appearance = sh_grid_of(fitted.model, scene.name), fitted.appearance
    started = time.perf_counter()
    evidence = gather_evidence(field, scene, appearance=appearance, seed=arguments.seed)
    evidence_seconds = time.perf_counter() - started
    files = {view.file: view.depth_file for view in captures.views if view.depth_file}
    found, truths, doubts, errors = [], [], [], []
    for index in range(len(scene)):
        depth_file = files.get(scene.image_names[index])
        if depth_file is None or not bool((scene.held_out == index).any()):
            continue
        camera = scene.cameras[index : index + 1]
        rendered, doubt = uncertainty_of_view(field, evidence, camera)
        found.append(torch.where(rendered.opacity > OPAQUE, axial_depth(rendered.depth, camera), 0.0))
        truths.append(read_depth(captures.path_of(depth_file)))
        doubts.append(doubt.doubt.flatten())
        errors.append((rendered.colour - scene.image(index)).square().mean(-1).sqrt().flatten())
    depth, judged = depth_error(found, truths), sparsification(torch.cat(doubts), torch.cat(errors))
    figures = {
        "scene": scene.name,
        "photos": arguments.photos,
        "views": len(found),
        "depth_median_m": round(depth.median_m, 4),
        "depth_median_relative": round(depth.median_relative, 4),
        "depth_within_5_percent": round(depth.within_5_percent, 4),
        "depth_known": round(depth.known, 4),
        "uncertainty_spearman": round(judged.spearman, 4),
        "uncertainty_ause": round(judged.ause, 4),
        "evidence_seconds": round(evidence_seconds, 2),
    }
    if arguments.mesh is not None:
        started = time.perf_counter()
        mesh = mesh_of(field, region=scene.bounds, cells=arguments.cells, smallest_m=1.0)
        write_geometry(mesh, arguments.mesh)
        figures |= {
            "mesh_triangles": len(mesh.faces),
            "mesh_bytes": arguments.mesh.stat().st_size,
            "mesh_seconds": round(time.perf_counter() - started, 2),
        }
    print_table([figures], "geometry")
    finish(figures | {"conditions": conditions(arguments.seed, arguments.threads)}, arguments.json)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", type=Path, required=True, help="a crowd bundle whose reference views have depths")
    parser.add_argument("--field", type=Path, help="a trained SH grid (.safetensors) instead of training one")
    parser.add_argument("--photos", choices=["spoiled", "clean"], default="clean")
    parser.add_argument("--seconds", type=float, default=60.0, help="budget of training")
    parser.add_argument("--mesh", type=Path, help="write a mesh here (.ply or .glb)")
    parser.add_argument("--cells", type=int, default=192, help="cells along the mesh's longest side")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
