// An encoder exported by `eyespot export MODEL --format onnx`, run by ONNX Runtime Web.
import * as ort from "onnxruntime-web";

// Several threads need a page served with the headers COOP and COEP; without them there is one.
ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;

export class Encoder {
  // url: of model.onnx. size: [height, width], needed only if the file was exported with --image-size dynamic.
  static async load(url, size) {
    const session = await ort.InferenceSession.create(url, { executionProviders: ["wasm"] });
    const shape = session.inputMetadata[0].shape;
    const [height, width] = size ?? shape.slice(2);
    if (!Number.isInteger(height) || !Number.isInteger(width)) {
      throw new Error(`${url} takes any size: load it with [height, width]`);
    }
    return new Encoder(session, height, width);
  }

  constructor(session, height, width) {
    Object.assign(this, { session, height, width });
  }

  // picture: ImageBitmap, <img>, <video> or <canvas>. Gives float32 [3, height, width], RGB in [0, 1]: the largest part
  // in the middle that has the model's proportions, resized to its size.
  pixels(picture) {
    const { height, width } = this;
    const wide = picture.naturalWidth ?? picture.videoWidth ?? picture.width;
    const high = picture.naturalHeight ?? picture.videoHeight ?? picture.height;
    const scale = Math.max(width / wide, height / high);
    const [cutWide, cutHigh] = [width / scale, height / scale];
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    context.fillStyle = "white"; // under transparent pictures
    context.fillRect(0, 0, width, height);
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, (wide - cutWide) / 2, (high - cutHigh) / 2, cutWide, cutHigh, 0, 0, width, height);
    const { data } = context.getImageData(0, 0, width, height); // RGBA, row by row
    const plane = height * width;
    const pixels = new Float32Array(3 * plane);
    for (let channel = 0; channel < 3; channel++) {
      for (let at = 0; at < plane; at++) pixels[channel * plane + at] = data[4 * at + channel] / 255;
    }
    return pixels;
  }

  // pixels: as `pixels()` gives them. Gives summary: float32 [C]; patches: float32 [D, rows, columns]; grid: [rows,
  // columns].
  async encode(pixels) {
    const images = new ort.Tensor("float32", pixels, [1, 3, this.height, this.width]);
    const { summary, patches } = await this.session.run({ images });
    return { summary: summary.data, patches: patches.data, grid: patches.dims.slice(2) };
  }
}

// How alike two summaries are, -1 to 1.
export function cosine(first, second) {
  let [dot, one, two] = [0, 0, 0];
  for (let at = 0; at < first.length; at++) {
    dot += first[at] * second[at];
    one += first[at] ** 2;
    two += second[at] ** 2;
  }
  return dot / Math.sqrt(one * two);
}
