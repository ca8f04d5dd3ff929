import { noise, pick, timed } from "../../dist/cli/bench/kit.js";

/** A product under jit, which reads a transposed matrix where it lies. */
export async function prepareMatmul({ numpy: np, jit, blockUntilReady }, { bench, shape: [m, k, n] }) {
  const [transposeA, transposeB] = [bench === "matmul_tn", bench === "matmul_nt"];
  const a = np.array(noise(m * k, 0)).reshape(transposeA ? [k, m] : [m, k]);
  const b = np.array(noise(k * n, 1)).reshape(transposeB ? [n, k] : [k, n]);
  const plain = (x, isTransposed) => (isTransposed ? x.transpose() : x);
  const product = jit((x, y) => np.matmul(plain(x, transposeA), plain(y, transposeB)));
  return {
    sample: async () => pick(await product(a.ref, b.ref).data()),
    measure: timed(async () => {
      const c = product(a.ref, b.ref);
      await blockUntilReady(c);
      c.dispose();
    }),
    dispose() {
      a.dispose();
      b.dispose();
      product.dispose();
    },
  };
}
