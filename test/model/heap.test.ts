import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type WasmBlock, WasmHeap } from "../../src/backends/wasm/memory.js";
import { BackendError } from "../../src/errors.js";

const BASE = 1000;
/** Where the first block may begin: the base, rounded up. */
const START = 1024;

const commands = fc.array(
  fc.oneof(
    fc.record({ allocate: fc.integer({ min: 0, max: 20_000 }) }),
    fc.record({ free: fc.nat({ max: 99 }) }),
    fc.record({ extend: fc.nat({ max: 99 }), by: fc.integer({ min: 0, max: 20_000 }) }),
  ),
  { maxLength: 80 },
);

describe("the heap of linear memory", () => {
  it("hands out aligned blocks that never overlap, and merges all that is given back", () => {
    fc.assert(
      fc.property(commands, (list) => {
        const memory = new WebAssembly.Memory({ initial: 1, maximum: 1024 });
        const heap = new WasmHeap(memory, BASE);
        const live: WasmBlock[] = [];
        let end = START;
        for (const command of list) {
          if ("allocate" in command) {
            const block = heap.allocate(command.allocate);
            expect(block.offset % 256).toBe(0);
            expect(block.offset).toBeGreaterThanOrEqual(START);
            expect(block.byteLength).toBeGreaterThanOrEqual(Math.max(1, command.allocate));
            expect(block.byteLength).toBeLessThan(command.allocate + 257);
            for (const other of live) {
              const apart =
                other.offset + other.byteLength <= block.offset ||
                block.offset + block.byteLength <= other.offset;
              expect(apart).toBe(true);
            }
            end = Math.max(end, block.offset + block.byteLength);
            // Kernels read whole vectors past the last column.
            expect(block.offset + block.byteLength + 64).toBeLessThanOrEqual(memory.buffer.byteLength);
            live.push(block);
          } else if ("extend" in command && live.length > 0) {
            const block = live[command.extend % live.length] as WasmBlock;
            const { offset, byteLength: before } = block;
            const wanted = before + command.by;
            const next = Math.min(...live.map((other) => other.offset).filter((at) => at > offset));
            const isExtended = heap.extend(block, wanted);
            expect(isExtended).toBe(Math.ceil(wanted / 256) * 256 <= next - offset);
            expect(block.offset).toBe(offset);
            expect(block.byteLength).toBe(isExtended ? Math.ceil(wanted / 256) * 256 : before);
            end = Math.max(end, block.offset + block.byteLength);
            expect(end + 64).toBeLessThanOrEqual(memory.buffer.byteLength);
          } else if ("free" in command && live.length > 0) {
            const [block] = live.splice(command.free % live.length, 1);
            if (block) heap.free(block);
          }
          expect(heap.report().used).toBe(live.reduce((sum, block) => sum + block.byteLength, 0));
          expect(heap.report().reserved).toBe(memory.buffer.byteLength);
          expect(heap.report().free).toBe(memory.buffer.byteLength - heap.report().used - BASE);
        }
        for (const block of live) heap.free(block);
        expect(heap.report().used).toBe(0);
        if (end === START) return;
        // All free ranges have become one: a block of the joint size needs no new memory.
        const { reserved } = heap.report();
        expect(heap.allocate(end - START).offset).toBe(START);
        expect(heap.report().reserved).toBe(reserved);
      }),
      { numRuns: 300 },
    );
  });

  it("takes the first free range that is large enough", () => {
    const heap = new WasmHeap(new WebAssembly.Memory({ initial: 4, maximum: 16 }), BASE);
    const blocks = [512, 256, 1024, 256].map((size) => heap.allocate(size));
    const [a, b, c] = blocks as [(typeof blocks)[0], (typeof blocks)[0], (typeof blocks)[0]];
    heap.free(a);
    heap.free(c);
    expect(heap.allocate(600).offset).toBe(c.offset);
    expect(heap.allocate(100).offset).toBe(a.offset);
    expect(heap.allocate(256).offset).toBe(a.offset + 256);
    heap.free(b);
    expect(heap.allocate(256).offset).toBe(b.offset);
  });

  it("grows, and says so when it cannot, without losing what it has", () => {
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 4 });
    const heap = new WasmHeap(memory, BASE);
    const first = heap.allocate(100_000);
    expect(memory.buffer.byteLength).toBe(3 * 65536);
    const before = heap.report();
    expect(() => heap.allocate(200_000)).toThrow(BackendError);
    expect(() => heap.allocate(200_000)).toThrow(/out of memory: 200192 bytes/);
    expect(() => heap.allocate(2 ** 40)).toThrow(BackendError);
    expect(() => heap.extend(first, 300_000)).toThrow(BackendError);
    expect(heap.report()).toEqual(before);
    expect(first.byteLength).toBe(100_096);
    heap.free(first);
    expect(heap.allocate(150_000).offset).toBe(first.offset);
  });
});
