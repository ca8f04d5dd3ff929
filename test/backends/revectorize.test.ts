import { beforeAll, describe, expect, it, vi } from "vitest";
import { loadModule } from "../../src/backends/wasm/load.js";
import { buildBytes } from "../../src/backends/wasm/module.js";
import { agree, CHECK_BYTES, compileRevectorized, KNOWN_CALLS } from "../../src/backends/wasm/revectorize.js";

const memory = new WebAssembly.Memory({ initial: 64, maximum: 65536 });
const PLACE = 32 * 65536;
let bytes: Uint8Array<ArrayBuffer>;
let instance: WebAssembly.Instance;

beforeAll(async () => {
  ({ bytes } = await buildBytes("baseline", false));
  ({ instance } = await loadModule(await WebAssembly.compile(bytes), memory, "4x8"));
});

describe("the check of revectorised kernels", () => {
  it("calls kernels that there are, with all their arguments", () => {
    for (const { name, writes, reads, rest } of KNOWN_CALLS) {
      const kernel = instance.exports[name] as (...args: number[]) => void;
      expect(kernel, name).toBeTypeOf("function");
      expect(writes + reads + rest.length, name).toBe(kernel.length);
    }
  });

  it("writes every operand that it compares, and nothing outside its room", () => {
    for (const known of KNOWN_CALLS) {
      const room = new Float32Array(memory.buffer, PLACE, CHECK_BYTES / 4);
      const after = new Float32Array(memory.buffer, PLACE + CHECK_BYTES, 1024);
      room.forEach((_, i) => {
        room[i] = ((i * 7919) % 1009) / 1009;
      });
      const before = room.slice();
      after.fill(7);
      const operands = Array.from({ length: known.writes + known.reads }, (_, i) => PLACE + i * 8192);
      (instance.exports[known.name] as (...args: number[]) => void)(...operands, ...known.rest);
      for (let i = 0; i < known.writes; i++) {
        const isWritten = room.subarray(i * 2048, (i + 1) * 2048).some((x, j) => x !== before[i * 2048 + j]);
        expect(isWritten, `${known.name}, operand ${i}`).toBe(true);
      }
      expect(after.every((value) => value === 7)).toBe(true);
    }
  });

  it("finds a kernel whose bits differ, whichever it is", () => {
    expect(agree(instance, instance, memory, PLACE)).toBe(true);
    for (const { name } of KNOWN_CALLS) {
      const wrong = (...args: number[]) => {
        (instance.exports[name] as (...args: number[]) => void)(...args);
        const bits = new Uint32Array(memory.buffer, args[0], 1);
        bits[0] = (bits[0] as number) ^ 1;
      };
      const other = { exports: { ...instance.exports, [name]: wrong } } as unknown as WebAssembly.Instance;
      expect(agree(instance, other, memory, PLACE), name).toBe(false);
    }
  });

  // Elsewhere no flag is set: V8 pairs vectors on x64 only.
  it.runIf(process.arch === "x64")("leaves V8's flags as they were", async () => {
    const v8 = await import("node:v8");
    // Two compilations with equal flags give equal fingerprints of V8's own cache of code.
    const fingerprint = () => v8.cachedDataVersionTag();
    const before = fingerprint();
    expect(await compileRevectorized(bytes)).toBeInstanceOf(WebAssembly.Module);
    expect(fingerprint()).toBe(before);
  });

  it("is not needed where V8 cannot revectorise", async () => {
    const arch = vi.spyOn(process, "arch", "get").mockReturnValue("arm64");
    expect(await compileRevectorized(bytes)).toBeUndefined();
    arch.mockRestore();
    vi.stubGlobal("Bun", {});
    expect(await compileRevectorized(bytes)).toBeUndefined();
    vi.unstubAllGlobals();
  });
});
