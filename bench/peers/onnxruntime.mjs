// What both builds of ONNX Runtime do alike: a session of one product, with both matrices as inputs, as they are
// where neither is a constant. A run copies them into the runtime's memory, and the result out of it.

import { noise, pick, timed } from "../../dist/cli/bench/kit.js";
import { matmulModel } from "./onnx.mjs";

/** Sets up a product on `ort`, the module of either build. */
export async function prepareMatmul(ort, { bench, shape }, sessionOptions) {
  const [m, k, n] = shape;
  const transposed = { transposeA: bench === "matmul_tn", transposeB: bench === "matmul_nt" };
  const session = await ort.InferenceSession.create(matmulModel(shape, transposed), sessionOptions);
  const a = new ort.Tensor("float32", noise(m * k, 0), transposed.transposeA ? [k, m] : [m, k]);
  const b = new ort.Tensor("float32", noise(k * n, 1), transposed.transposeB ? [n, k] : [k, n]);
  const run = () => session.run({ a, b });
  return {
    sample: async () => pick((await run()).c.data),
    measure: timed(async () => void (await run())),
    dispose: () => void session.release(),
  };
}
