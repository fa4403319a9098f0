# %% [markdown]
# # 2 · Where the phones really were
#
# **Question.** How well must a camera's pose be known before a field can be trained on its photo, and where can such
# poses come from?
#
# **Predict.** GPS errs by metres and a compass by degrees. With a pose wrong by 3 m and 6°, by how many pixels does a
# point on the stage, 15 m away, miss its place in a photo 320 pixels wide?
#
# **Time.** 3 minutes on two CPU cores, most of it structure from motion; a GPU changes nothing here.
#
# **Needs.** The screened photos of [notebook 1](01_crowd_ingest.ipynb); made if missing. Structure from motion is
# pycolmap's, the extra `colmap`.

# %%
import math

import crowdnerf_lab as cn
from crowdnerf_lab.cameras import rotation_angle
from crowdnerf_lab.captures.georegistration import similarity_between
from crowdnerf_lab.captures.posed_formats import read_transforms, write_transforms

# %% tags=["parameters"]
preset = "standard"

# %%
bench = cn.open_workbench(preset)
captures = bench.captures_to_calibrate()

# %% [markdown]
# ## What a wrong pose does to a pixel
#
# A point $X$ falls on the pixel $f\,x/z + c$ with $(x, y, z) = R^\top (X - t)$. Turning the camera by an angle
# $\Delta$ moves it by about $f\,\Delta$; shifting it sideways by $s$ moves it by $f\,s/z$. Your prediction, worked
# out for the first photo:

# %%
focal, distance, shift, turn = captures.photos[0].focal_px, 15.0, 3.0, math.radians(6)
print(f"{focal * turn:.0f} px from the compass, {focal * shift / distance:.0f} px from GPS, in a photo 320 px wide")

# %% [markdown]
# On the screen above the stage, letters are a few pixels high. On such poses no field can be sharp, however long it
# trains.
#
# ## Three sources of poses
#
# The phones' own **metadata** (row S62). **Structure from motion**, which finds the same points in many photos, and
# moves cameras and points until these project to where they were seen, $\min \sum_{ij} \rho\big(\lVert \pi(R_i, t_i,
# X_j) - u_{ij} \rVert\big)$ (Schönberger and Frahm 2016). And, because this concert is rendered, the **truth**.
# Structure from motion knows neither scale nor north; its world is turned and scaled to what the phones report, or,
# for a study, to the truth.

# %%
metadata, by_metadata = cn.calibrate(captures, poses="metadata")
motion, by_motion = cn.calibrate(captures, poses="colmap", align="truth", workspace=bench.root / "colmap")
truth, by_truth = cn.calibrate(captures, poses="truth")
print(by_motion.summary())

# %% [markdown]
# ## Where each of them puts the crowd

# %%
cn.figures.capture_map(
    {
        "the truth": truth.cameras[truth.train],
        "structure from motion": motion.cameras[motion.train],
        "metadata": metadata.cameras[metadata.train],
    },
    points=by_motion.points,
    point_colours=by_motion.colours.float() / 255,
)

# %% [markdown]
# The coloured points are what structure from motion found on the way: corners that several photos share, mostly on
# the stage. Where two frusta coincide, the pose was recovered; a frustum that floats alone is a phone whose GPS was
# off.
#
# ## How far off

# %%
cn.figures.table(
    {
        "poses": name,
        "photos posed": len(report.registered),
        "metres, median": report.median_position_error,
        "degrees, median": math.degrees(report.median_rotation_error),
        "seconds": report.seconds,
    }
    for name, report in {"metadata": by_metadata, "structure from motion": by_motion, "truth": by_truth}.items()
)

# %% [markdown]
# Photos that were not posed are not lost by accident: they share too little with the others, and say so in the
# report. Leaving them out is part of preparing the training data (S64).
#
# ## What it means for a field
#
# The same training, the same seconds, three sources of poses; judged on the same held-out views.

# %%
views = bench.views()
fields = {
    name: cn.fit(bench.sized(scene), seconds=bench.preset.ablation_seconds).model
    for name, scene in {"metadata": metadata, "structure from motion": motion, "truth": truth}.items()
}
renders = {name: bench.renders(field) for name, field in fields.items()}
cn.figures.image_strip(
    {"truth": views.truths[0], **{f"poses: {name}": shown[0] for name, shown in renders.items()}},
    truth=views.truths[0],
)

# %% [markdown]
# Look at the screen's words, then at the numbers over all views:

# %%
scores = {name: cn.quality(shown, list(views.truths)) for name, shown in renders.items()}
cn.figures.table(
    {"trained on poses from": name, "PSNR, dB": score.psnr, "SSIM": score.ssim, "ꟻLIP": score.flip}
    for name, score in scores.items()
)

# %%
gap = scores["truth"].psnr - scores["metadata"].psnr
regained = scores["structure from motion"].psnr - scores["metadata"].psnr
print(f"The phones' own poses cost {gap:.1f} dB; structure from motion changes that by {regained:+.1f} dB.")

# %% [markdown]
# Read it with care: a field learns in the frame of its own poses, but is judged in the true one, so what structure
# from motion loses against the truth is partly detail and partly a remaining offset of the whole frame.

# %% tags=["check"]
assert len(by_motion.registered) >= 0.5 * len(captures.photos), by_motion.summary()
assert by_motion.median_position_error < by_metadata.median_position_error, "the photos know less than GPS"
assert by_motion.median_rotation_error < by_metadata.median_rotation_error, "the photos know less than the compass"
write_transforms(motion, bench.root / "calibrated")
print(
    f"{by_motion.summary()}; metadata {by_metadata.median_position_error:.2f} m; a field loses {gap:.1f} dB on metadata"
)

# %% [markdown]
# The calibrated scene is kept in `calibrated/` of this preset's folder, as a `transforms.json` that nerfstudio,
# instant-ngp and this lab read. The notebooks that follow train on the *true* poses, so that what they measure is the
# field and not the calibration; exercise 3 trains on yours.
#
# ## Exercises
#
# Write your own answer in a new cell; the folded cell below each exercise holds a solution that checks itself.
#
# **Exercise 1.** Nobody knows the truth at a real event. How far off is the frame when it is fitted to the phones'
# metadata instead? The expensive stages are kept, so this is quick.

# %% jupyter={"source_hidden": true} tags=["solution"]
_, honest = cn.calibrate(captures, poses="colmap", align="metadata", workspace=bench.root / "colmap")
print(f"{honest.median_position_error:.2f} m and {math.degrees(honest.median_rotation_error):.2f} degrees")
assert honest.median_position_error < by_metadata.median_position_error
assert honest.registered == by_motion.registered

# %% [markdown]
# **Exercise 2.** A similarity turns, scales and shifts. Take the true poses, turn them by 90° about the up axis and
# shrink them to half; does `similarity_between` find the way back?

# %% jupyter={"source_hidden": true} tags=["solution"]
poses = truth.cameras.camera_to_world
turn = poses.new_tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
moved = turn @ poses
moved[..., 3] *= 0.5
back = similarity_between(moved, poses)
assert abs(back.scale - 2) < 1e-4
assert rotation_angle(back.rotation.float(), turn.T) < 1e-3

# %% [markdown]
# **Exercise 3.** Read the kept scene back and train on it for a moment. Is it what was written?

# %% jupyter={"source_hidden": true} tags=["solution"]
kept, missing = read_transforms(bench.root / "calibrated")
assert not missing.absent
assert len(kept.train) == len(motion.train)
again = cn.fit(bench.sized(kept).with_split(kept.train.tolist(), []), steps=20).model
assert cn.psnr(bench.picture(again), views.truths[0]) > 5

# %% [markdown]
# **On to** [3 · Training a radiance field](03_train_radiance_field.ipynb).
