import { createBackend } from "../src/backends/create.js";
import { describeOps, describeSplits } from "./ops/suite.js";

for (const wasm of ["baseline", "relaxed"] as const) {
  const create = () => createBackend({ kind: "wasm", wasm, threads: 1 });
  describeOps(`wasm ${wasm}`, create);
  describeSplits(`wasm ${wasm}`, create);
}
