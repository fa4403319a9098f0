"""What a browser reaches: the field it marches, the students it runs, the first picture, the explorer, live previews.

    python -m benchmarks.browser --json
    python -m benchmarks.browser --parts march students --quick

Headless Chromium, WebGL2 in software (SwiftShader), WebAssembly on one thread; each part runs in a process of its own,
one after the other. The models come from runs/standard (`make run`) and runs/bench_artefacts
(`python -m benchmarks.devices`).
"""

from benchmarks.parts import run_parts

PARTS = ("march", "students", "first_picture", "explorer", "preview")

if __name__ == "__main__":
    run_parts("benchmarks.browser", PARTS, about=__doc__ or "")
