import { createBackend } from "../src/backends/create.js";
import { describeOps } from "./ops/suite.js";

/** WGSL grants its built-in functions more error than the wasm kernels have (exp: 3 + 2·|x| ulp). */
const SLACK = 4;

describeOps("webgpu", () => createBackend({ kind: "webgpu" }), { slack: SLACK });
