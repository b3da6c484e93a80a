"""The browser guide's files, as they stand in docs, in a real browser against Python."""

import importlib.util
import json
import queue
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

from eyespot.deploy.graph import exportable, trace
from eyespot.encoders import load_encoder

pytest.importorskip("onnxscript", reason="ONNX export needs onnxscript")

DOCS = Path(__file__).resolve().parents[2] / "docs" / "deploy"
FILES = ("eyespot.mjs", "index.html", "server.py")
VERSION = "1.30"  # of onnxruntime-web, as in docs/deploy/browser.md
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
HUNG = 120  # seconds after which a silent browser counts as hung
HEIGHT, WIDTH = 96, 64

PAGE = """<!doctype html>
<script type="importmap">
{ "imports": { "onnxruntime-web": "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs" } }
</script>
<iframe id="page" src="index.html"></iframe>
<script type="module">
const answer = async () => {
  const { env } = await import("onnxruntime-web");
  const { Encoder } = await import("./eyespot.mjs");
  const get = async (name) => await (await fetch(name)).blob();
  const encoder = await Encoder.load("model.onnx");
  const plain = (features) => Object.fromEntries(Object.entries(features).map(([key, value]) => [key, [...value]]));
  const drawn = encoder.pixels(await createImageBitmap(await get("small.png")));
  const photo = encoder.pixels(await createImageBitmap(await get("large.png")));
  const open = await Encoder.load("open.onnx").then(() => "loaded", (error) => error.message);
  const larger = await Encoder.load("open.onnx", [64, 128]);
  return {
    threads: env.wasm.numThreads,
    raw: plain(await encoder.encode(new Float32Array(await (await get("pixels.f32")).arrayBuffer()))),
    drawn: [...drawn],
    photo: plain(await encoder.encode(photo)),
    open,
    larger: plain(await larger.encode(new Float32Array(await (await get("larger.f32")).arrayBuffer()))),
    page: await usePage(["small.png", "large.png"], get),
  };
};
const usePage = async (names, get) => {
  const page = document.getElementById("page").contentDocument;
  const text = async (start) => {
    for (;;) {
      const found = page.getElementById("answer").textContent;
      if (found.match(start)) return found;
      await new Promise((go) => setTimeout(go, 50));
    }
  };
  if (await text(/^(ready|failed)/) !== "ready") return text(/^failed/);
  const chosen = new DataTransfer();
  for (const name of names) chosen.items.add(new File([await get(name)], name));
  const input = page.getElementById("pictures");
  input.files = chosen.files;
  input.dispatchEvent(new Event("change"));
  return text(/^(cosine|choose)/);
};
const found = await answer().catch((error) => ({ error: error.stack }));
await fetch("/result", { method: "POST", body: JSON.stringify(found) });
</script>
"""


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    """A folder with ONNX Runtime Web in node_modules."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    if shutil.which("npm") is None:
        pytest.skip("no npm here")
    folder = tmp_path_factory.mktemp("npm")
    command = "npm install --no-audit --no-fund --ignore-scripts --prefer-offline --fetch-retries=0"
    done = subprocess.run([*command.split(), f"onnxruntime-web@{VERSION}"], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"npm cannot install onnxruntime-web: {done.stderr.strip().splitlines()[-1:]}")
    return folder


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return load_encoder("timm/test_vit?pretrained=false").eval()


@pytest.fixture(scope="module")
def pictures():
    """One that fits the model and one to be cut and resized, both smooth, as photographs are."""
    generator = torch.Generator().manual_seed(0)

    def smooth(height, width):
        noise = torch.rand(1, 3, 12, 12, generator=generator)
        pixels = F.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1)[0]
        return Image.fromarray((pixels * 255).byte().permute(1, 2, 0).numpy())

    return {"small": smooth(HEIGHT, WIDTH), "large": smooth(400, 700)}


def as_tensor(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


@pytest.fixture(scope="module")
def found(runtime, encoder, pictures, tmp_path_factory):
    """What the browser answers."""
    from eyespot.deploy.formats import onnx

    module = exportable(encoder)
    onnx.write(trace(module, batch=1, size=(HEIGHT, WIDTH)), runtime / "model.onnx")
    onnx.write(trace(module, batch=1, size=None), runtime / "open.onnx")
    for name, picture in pictures.items():
        picture.save(runtime / f"{name}.png")
    as_tensor(pictures["small"]).numpy().tofile(runtime / "pixels.f32")
    larger().numpy().tofile(runtime / "larger.f32")
    for file in FILES:
        shutil.copy(DOCS / "browser" / file, runtime)
    (runtime / "test.html").write_text(PAGE)
    answer = browse(runtime, "test.html", tmp_path_factory.mktemp("profile"))
    assert "error" not in answer, answer["error"]
    return answer


def larger():
    return torch.rand(3, 64, 128, generator=torch.Generator().manual_seed(1))


def browse(folder, page, profile):
    """Opens a page in headless Chromium and returns what it posts."""
    results = queue.Queue()

    class Handler(served_by_docs(folder)):
        def do_POST(self):
            results.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/{page}"
    command = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={profile}", address]
    log = profile.parent / f"{profile.name}.log"
    with log.open("w") as stream:
        browser = subprocess.Popen(command, stdout=stream, stderr=stream)
        try:
            return results.get(timeout=HUNG)
        except queue.Empty:
            pytest.fail(f"the browser said nothing; its log ends with {log.read_text()[-2000:]}")
        finally:
            browser.terminate()
            browser.wait()
            server.shutdown()
            server.server_close()


def served_by_docs(folder) -> type[SimpleHTTPRequestHandler]:
    spec = importlib.util.spec_from_file_location("browser_server", folder / "server.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Handler


def assert_equal(answer, expected):
    """Equal to 1e-3, absolutely and relative to the features' own size."""
    for key in ("summary", "patches"):
        values, wanted = torch.tensor(answer[key]), getattr(expected, key)[0]
        error = (values.view_as(wanted) - wanted).abs().max()
        assert error <= 1e-3 * min(1.0, float(wanted.abs().max()))


@pytest.mark.formats
def test_features_equal_pythons(found, runtime, encoder, pictures):
    pixels = as_tensor(pictures["small"])
    expected = load_encoder(f"onnx/{runtime / 'model.onnx'}")(pixels[None])
    assert found["raw"]["grid"] == list(expected.patches.shape[2:]) == [6, 4]
    assert_equal(found["raw"], expected)
    with torch.no_grad():
        assert_equal(found["raw"], encoder(pixels[None]))


@pytest.mark.formats
def test_the_canvas_gives_the_pixels_of_the_file(found, pictures):
    assert torch.equal(torch.tensor(found["drawn"]).view(3, HEIGHT, WIDTH), as_tensor(pictures["small"]))


@pytest.mark.formats
def test_cutting_and_resizing_is_nearly_pillows(found, encoder, pictures):
    pixels = as_tensor(ImageOps.fit(pictures["large"], (WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    with torch.no_grad():
        expected = encoder(pixels[None]).summary[0]
    assert F.cosine_similarity(torch.tensor(found["photo"]["summary"]), expected, dim=0) > 0.999


@pytest.mark.formats
def test_a_file_of_any_size_wants_to_know_it(found, encoder):
    assert found["open"] == "open.onnx takes any size: load it with [height, width]"
    with torch.no_grad():
        assert_equal(found["larger"], encoder(larger()[None]))


@pytest.mark.formats
def test_the_headers_give_threads(found):
    assert found["threads"] > 1


@pytest.mark.formats
def test_the_example_page_compares_two_pictures(found):
    summaries = [torch.tensor(found[name]["summary"]) for name in ("raw", "photo")]
    assert found["page"] == f"cosine {F.cosine_similarity(*summaries, dim=0):.4f}"


def test_the_guide_shows_the_very_files():
    guide = (DOCS / "browser.md").read_text()
    for file in FILES:
        assert (DOCS / "browser" / file).read_text() in guide, f"browser.md shows another {file}"
    assert f"onnxruntime-web@{VERSION}" in guide
