import { afterAll, beforeAll, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { createBackend } from "../../src/backends/create.js";
import { add } from "../../src/ops/add.js";
import { matmul } from "../../src/ops/matmul.js";
import { Tape } from "../../src/tape.js";
import { Arena } from "../../src/tensor.js";

let backend: Backend;
beforeAll(async () => {
  backend = await createBackend({ kind: "wasm", threads: 1 });
});
afterAll(() => backend.dispose());

it("keeps the gradient of a weight that a block meets first", async () => {
  const gradients = async (blocks: boolean) => {
    const tape = new Tape(new Arena(backend));
    const weight = tape.from(Float32Array.of(1, 2, 3, 4), [2, 2]);
    weight.requiresGrad = true;
    let x = tape.from(Float32Array.of(1, -1), [1, 2]);
    for (let i = 0; i < 3; i++) {
      const body = (input: typeof x) => add(tape, input, matmul(tape, input, weight));
      x = blocks ? tape.block(x, body) : body(x);
    }
    x.grad = tape.from(Float32Array.of(1, 0.5), [1, 2]);
    tape.backward();
    return Array.from(await tape.grad(weight).read());
  };
  expect(await gradients(true)).toEqual(await gradients(false));
});
