import { createRequire } from "node:module";
import { dirname } from "node:path";
import { noise, pick, serve, timed } from "../../dist/cli/bench/kit.js";

await serve(async () => {
  const tf = await import("@tensorflow/tfjs-core");
  const wasm = await import("@tensorflow/tfjs-backend-wasm");
  const main = createRequire(import.meta.url).resolve("@tensorflow/tfjs-backend-wasm");
  wasm.setWasmPaths(`${dirname(main)}/`);
  await tf.setBackend("wasm");
  return {
    description: `${wasm.version_wasm}, SIMD ${await tf.env().getAsync("WASM_HAS_SIMD_SUPPORT")}`,
    async prepare({ bench, shape: [m, k, n] }) {
      const [transposeA, transposeB] = [bench === "matmul_tn", bench === "matmul_nt"];
      const a = tf.tensor2d(noise(m * k, 0), transposeA ? [k, m] : [m, k]);
      const b = tf.tensor2d(noise(k * n, 1), transposeB ? [n, k] : [k, n]);
      // Its own transposition inside the product takes 5 to 75 times as long as this (measured).
      const plain = (x, isTransposed) => (isTransposed ? tf.transpose(x) : x);
      const product = () => tf.tidy(() => tf.matMul(plain(a, transposeA), plain(b, transposeB)));
      return {
        async sample() {
          const c = product();
          const values = pick(await c.data());
          c.dispose();
          return values;
        },
        measure: timed(async () => product().dispose()),
        dispose: () => tf.dispose([a, b]),
      };
    },
  };
});
