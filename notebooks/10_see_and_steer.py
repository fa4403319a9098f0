# %% [markdown]
# # 10 · See and steer
#
# **Question.** What can be learned from a scene by steering through it; and can the browser you read this in be the
# UE, with a model of its own, beside the network's pictures?
#
# **Predict.** Guess three things: how many pixels this machine can draw 24 times a second while you drag; how much
# larger a baked field is for a browser, which cannot undo its entropy coding; and which is sooner on your screen, the
# network's first picture or your browser's own.
#
# **Time.** 2 minutes on two CPU cores, once the models exist.
#
# **Needs.** The field of [notebook 3](03_train_radiance_field.ipynb) and the artefacts of [notebook
# 6](06_fit_to_devices.ipynb); made if missing.

# %%
import itertools

import crowdnerf_lab as cn
from crowdnerf_lab.live_rendering.camera_paths import camera_path
from crowdnerf_lab.live_rendering.live_renderer import LiveRenderer
from crowdnerf_lab.live_rendering.recording import record_path
from crowdnerf_lab.network.models.browser_models import browser_model_of

# %% tags=["parameters"]
preset = "standard"

# %%
bench = cn.open_workbench(preset)
scene, field = bench.scene(), bench.field()
ladder = {artefact.card.name: artefact for artefact in bench.artefacts()}
print(f"{len(scene)} views of the scene, {len(ladder)} models of it")

# %% [markdown]
# Every widget below runs while a kernel does. What stays on a page without one is the still figure after it: each
# widget has `still()`.
#
# ## Who stood where
#
# Turn the map, hover over a rejected photo to see why, click a phone to see what it sent (rows S22, S64). Grey is what
# the field holds and no photo shows.

# %%
crowd = cn.concert()
_, screening = cn.screen(crowd)
covered = cn.coverage(field, scene, cells=bench.preset.coverage_cells)
where = cn.widgets.capture_map(crowd, scene=scene, screening=screening, covered=covered)
where

# %%
where.still()

# %% [markdown]
# The crowd stands on one side. What no phone looked at, no field can know, however long it trains.
#
# ## Fly through the field
#
# Drag to look round, right-drag to shift, scroll to come closer; or use the keys, which `?` lists. While you move, the
# kernel draws as many pixels as it can 24 times a second; at rest it refines. Switch to *depth*, *opacity*,
# *uncertainty* or *occupancy*; go to any UE's photo and fade between it and the field (row S24).

# %%
flight = cn.widgets.explorer(field, scene=scene)
flight

# %% [markdown]
# Walk to the side of the stage and switch to *uncertainty*: it grows where few rays of the crowd passed. A blurred
# patch that is *certain* is a different fault: the grid's cells are too large there.
#
# ## The same camera for all
#
# Four panes, one camera: the photo that the crowd never took, the field that learned from the others, the field baked
# into the bytes of a photo, and a student that draws in one pass.

# %%
smallest = min((name for name in ladder if "baked_field.200kB" in name), key=len)
panes = {
    "truth": scene,
    "field": field,
    "baked, 200 kB": cn.load_artefact(ladder[smallest].folder),
    "student": bench.student(bench.preset.students[0]),
}
beside = cn.widgets.explorer(panes, scene=scene, size=(240, 180))
beside

# %%
beside.still()

# %% [markdown]
# Errors look different. The baked field loses what its bytes cannot hold, evenly; the student, which never marched a
# ray, is best where it was trained to look and worst at the borders of its block of seats.
#
# ## Watch it learn, and interfere
#
# `training_board` trains in a thread of the kernel, so the cell is free again at once. *Stop* ends after the current
# step and keeps what is there; *resume* goes on from it; *branch* goes on in a copy with another seed (row S23).

# %%
seconds = bench.preset.quick_fit_seconds
board = cn.widgets.training_board(scene, seconds=seconds)
board

# %%
learned = board.wait()
board.branch(seed=1, seconds=seconds + bench.preset.ablation_seconds)
branched = board.wait()
board.still()

# %% [markdown]
# Of two runs that differ in the seed alone, the gap between the curves is what chance does: a smaller gain than that
# is none.
#
# ## This browser is a UE
#
# The page finds out what the browser can do (cores, memory, SIMD, a graphics processor), tries its speed, and declares
# it. It is given a model, and draws by itself: a *baked field* is marched by your graphics processor in a WebGL2
# shader, a *light field* runs in WebAssembly, in a worker. Beside it stands the network's picture of the same view,
# with the milliseconds and bytes of both (rows S28, S32, S58, S69). Here the kernel is the network.
#
# Let the battery run low, or choose a crowded cell, and watch *auto* change its mind.

# %%
browser = cn.widgets.ue(bench, field=field)
browser

# %%
browser.still()

# %% [markdown]
# The network's picture, and what this machine's processor draws of it with the model. The same page, without Jupyter,
# is at `/ue` of every service (`make serve`), also on a phone:
#
# ![The page of a browser UE: its own picture beside the network's, with the milliseconds and bytes of
# both](../data/pictures/browser_ue.jpg)
#
# ## The check

# %% tags=["check"]
views = bench.views()
drawn_db = cn.quality([bench.picture(field)], [views.truths[0]]).psnr
assert drawn_db > bench.preset.least_psnr
assert learned is not None
assert branched is not None
assert len(board.runs.runs) == 2
frames = []
with LiveRenderer(field, on_frame=frames.append) as live:
    frame = live.still(bench.request(0))
print(f"the field is drawn at {frame.rays_per_second / 1e3:.0f} thousand rays a second, {drawn_db:.1f} dB")

# %% [markdown]
# **Your prediction.** Of the field itself this machine draws some hundred thousand rays a second; of its baked form,
# which stands in while you move, eight times as many (exercise 1): 24 times a second that is a picture of about 215 ×
# 160. For a browser a baked field is a fifth larger than coded (exercise 2). Which picture is first, the page's table
# says of your own machine and link; the probe that comes with a model's card is usually before both.

# %% [markdown]
# ## What can go wrong
#
# - **A busy kernel answers nobody.** An explorer's camera arrives between cells: while `cn.fit(...)` fills a cell, it
#   stands still. The board trains in a thread for that reason.
# - **No graphics processor, no shader.** Without WebGL2 the page says so and takes a light field, or asks the network;
#   in software (a remote desktop, a headless browser) the march is ten to a hundred times slower.
# - **One thread.** WebAssembly has threads only in a page that is isolated from other origins; Jupyter's is not, so a
#   student draws on one.
# - **A wide picture over a thin line.** The kernel's frames cross the network if the kernel is elsewhere. The explorer
#   sends the next frame only when the last has arrived, so it becomes slow, never late.
# - **A model is not the scene.** Drag far enough behind the crowd and every model invents something; the truth pane
#   shows the nearest view that anybody knows.

# %% [markdown]
# ## Exercises
#
# Write your own answer in a new cell; the folded cell below each exercise holds a solution that checks itself.
#
# **Exercise 1.** How many times as many rays a second does the kernel draw of the baked field as of the field it was
# baked from? That is why a moving explorer shows the one, and a resting one the other.

# %% jupyter={"source_hidden": true} tags=["solution"]
with LiveRenderer(panes["baked, 200 kB"], on_frame=frames.append) as live:
    live.still(bench.request(0))  # the first compiles
    quick = live.still(bench.request(0))
assert quick.rays_per_second > frame.rays_per_second
print(f"{quick.rays_per_second / frame.rays_per_second:.1f} times")

# %% [markdown]
# **Exercise 2.** A browser has no range decoder: it is sent a field's rows, or a student's graph, as gzip packs them,
# and fills the shader's textures itself. How much larger is each kind of model for a browser than as it is coded for
# a UE that can decode?

# %% jupyter={"source_hidden": true} tags=["solution"]
some = {card.family: each for each in ladder.values() if (card := each.card).coding == "progressive"}
rows = [{"model": name, "coded, kB": each.card.bytes / 1e3} for name, each in some.items()]
for row, each in zip(rows, some.values(), strict=True):
    row["for a browser, kB"] = browser_model_of(each).bytes / 1e3
assert all(row["for a browser, kB"] > row["coded, kB"] for row in rows)
cn.figures.table(rows)

# %% [markdown]
# **Exercise 3.** Record a flight from the first held-out view to the second as a GIF, and find the frame that differs
# most from the one before it.

# %% jupyter={"source_hidden": true} tags=["solution"]
keys = [bench.request(0), bench.request(1)]
path = camera_path(keys, seconds=1, frames_per_second=8)
film = record_path(field, path, file=bench.root / "flight.gif", frames_per_second=8, progress=False)
with LiveRenderer(field, on_frame=frames.append) as live:
    shown = [live.still(view).picture / 255 for view in path]
steps = [float(abs(after - before).mean()) for before, after in itertools.pairwise(shown)]
assert film.stat().st_size > 0
assert len(steps) == len(path) - 1
print(f"{film.stat().st_size / 1e3:.0f} kB; the largest step, {max(steps):.3f}, is frame {steps.index(max(steps)) + 1}")

# %%
for widget in (flight, beside, browser):
    widget.close()

# %% [markdown]
# ## Further reading
#
# - C. Reiser, S. Garbin, P. Srinivasan and others: [Binary Opacity Grids: Capturing Fine Geometric Detail for
#   Mesh-Based View Synthesis](https://arxiv.org/abs/2402.12377). ACM Transactions on Graphics, 2024. What a browser
#   can show when the scene is made for it.
# - P. Hedman, P. Srinivasan, B. Mildenhall, J. Barron, P. Debevec: [Baking Neural Radiance Fields for Real-Time View
#   Synthesis](https://arxiv.org/abs/2103.14645). ICCV 2021. Bricks in textures, marched in a shader.
# - J. Cao, H. Wang, P. Chemerys and others: [Real-Time Neural Light Field on Mobile
#   Devices](https://arxiv.org/abs/2212.08057). CVPR 2023.
# - T. Manz, N. Abdennur, N. Gehlenborg: [anywidget: reusable widgets for interactive analysis and visualization in
#   computational notebooks](https://doi.org/10.21105/joss.06939). Journal of Open Source Software, 2024.
#
# The series ends here. [The map](README.md) leads back to any of it.
