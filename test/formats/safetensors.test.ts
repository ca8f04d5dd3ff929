import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FormatError, UnsupportedError } from "../../src/errors.js";
import { openSafetensors } from "../../src/formats/safetensors.js";
import { type TensorData, writeSafetensors } from "../../src/formats/safetensors-write.js";
import { bytesSource } from "../../src/formats/source.js";
import { concatenate, rejection } from "./helpers.js";

const encoder = new TextEncoder();

/** A file with that header text and that many bytes of data. */
function fileOf(header: string | object, dataLength = 0, headerLength?: bigint): Uint8Array {
  const json = encoder.encode(typeof header === "string" ? header : JSON.stringify(header));
  const bytes = new Uint8Array(8 + json.length + dataLength);
  new DataView(bytes.buffer).setBigUint64(0, headerLength ?? BigInt(json.length), true);
  bytes.set(json, 8);
  for (let i = 0; i < dataLength; i++) bytes[8 + json.length + i] = i + 1;
  return bytes;
}

const open = (bytes: Uint8Array) => openSafetensors(bytesSource("m.safetensors", bytes));
const f32 = (shape: number[], begin: number, end: number) => ({
  dtype: "F32",
  shape,
  data_offsets: [begin, end],
});

describe("what is refused", () => {
  const cases: [name: string, file: Uint8Array, message: RegExp][] = [
    ["an empty file", new Uint8Array(0), /too few/],
    ["seven bytes", new Uint8Array(7), /too few/],
    ["a header past the end", fileOf("{}", 0, 3n), /past the end/],
    ["a header beyond 100 MB", fileOf("{}", 0, 100_000_001n), /limit/],
    ["the largest length there is", fileOf("{}", 0, 0xffff_ffff_ffff_ffffn), /limit/],
    ["a header that is no object", fileOf("[]"), /start with '{'/],
    ["white space first", fileOf(" {}"), /start with '{'/],
    ["no JSON", fileOf("{"), /not valid JSON/],
    ["JSON nested without end", fileOf(`{"a":${"[".repeat(100_000)}`), /not valid JSON/],
    ["bytes that are not UTF-8", fileOf("{}").fill(0xff, 9), /UTF-8/],
    [
      "a tensor twice",
      fileOf(`{"a":${JSON.stringify(f32([1], 0, 4))},"\\u0061":${JSON.stringify(f32([1], 0, 4))}}`, 4),
      /'a' twice/,
    ],
    [
      "a field twice",
      fileOf('{"a":{"dtype":"F32","dtype":"F32","shape":[],"data_offsets":[0,4]}}', 4),
      /'dtype' twice/,
    ],
    ["a tensor that is no object", fileOf({ w: 1 }), /tensor 'w'/],
    ["an unknown dtype", fileOf({ w: { ...f32([1], 0, 4), dtype: "F33" } }, 4), /tensor 'w': unknown dtype/],
    ["a missing dtype", fileOf({ w: { shape: [1], data_offsets: [0, 4] } }, 4), /tensor 'w': unknown dtype/],
    ["a shape that is no list", fileOf({ w: { ...f32([1], 0, 4), shape: 1 } }, 4), /tensor 'w': shape/],
    ["a negative dimension", fileOf({ w: f32([-1], 0, 4) }, 4), /tensor 'w': shape/],
    ["a broken dimension", fileOf({ w: f32([0.5], 0, 2) }, 2), /tensor 'w': shape/],
    [
      "three offsets",
      fileOf({ w: { ...f32([1], 0, 4), data_offsets: [0, 4, 8] } }, 8),
      /tensor 'w': data_offsets/,
    ],
    ["offsets backwards", fileOf({ w: f32([1], 4, 0) }, 4), /backwards/],
    ["data past the end", fileOf({ w: f32([2], 0, 8) }, 4), /tensor 'w': data ends at byte 8/],
    ["too few bytes for the shape", fileOf({ w: f32([2], 0, 4) }, 4), /tensor 'w': 4 bytes/],
    [
      "a size that overflows 64 bits",
      fileOf({ w: f32([2 ** 32, 2 ** 32], 0, 0) }),
      /tensor 'w': shape .* too large/,
    ],
    ["an overflow that a zero hides", fileOf({ w: f32([2 ** 50, 2 ** 50, 0], 0, 0) }), /too large/],
    ["an overlap", fileOf({ a: f32([2], 0, 8), b: f32([1], 4, 8) }, 8), /tensor 'b'.*overlaps/],
    ["a hole", fileOf({ a: f32([1], 0, 4), b: f32([1], 8, 12) }, 12), /tensor 'b'.*hole/],
    ["a hole at the start", fileOf({ a: f32([1], 4, 8) }, 8), /tensor 'a'.*hole/],
    ["bytes at the end", fileOf({ a: f32([1], 0, 4) }, 5), /1 bytes at the end/],
    ["metadata that is no object", fileOf({ __metadata__: 1 }), /__metadata__/],
    ["metadata with a number", fileOf({ __metadata__: { a: 1 } }), /__metadata__\.a/],
  ];
  test.each(cases)("%s", async (_, file, message) => {
    const error = await rejection(open(file));
    expect(error).toBeInstanceOf(FormatError);
    expect(error.message).toMatch(/^m\.safetensors: /);
    expect(error.message).toMatch(message);
  });
});

describe("what is read", () => {
  test("an empty header, a header padded with spaces, an empty tensor at a boundary", async () => {
    expect((await open(fileOf("{}"))).tensors.size).toBe(0);
    const file = await open(fileOf(`${JSON.stringify({ e: f32([0, 3], 4, 4), w: f32([], 0, 4) })}    `, 4));
    expect([...file.tensors.keys()]).toEqual(["e", "w"]);
    expect(await file.read("e")).toEqual(new Float32Array(0));
  });

  test("a tensor may be named like a property of objects", async () => {
    const file = await open(fileOf(`{"__proto__":${JSON.stringify(f32([1], 0, 4))}}`, 4));
    expect([...file.tensors.keys()]).toEqual(["__proto__"]);
  });

  test("long strings with quotes and braces do not confuse the search for keys", async () => {
    const text = `${'\\"{}:'.repeat(200_000)}\\\\`;
    const file = await open(fileOf(`{"__metadata__" : {"a":"${text}","b":"a"}}`));
    expect(file.metadata.b).toBe("a");
  });

  test("every float type as f32, at odd offsets", async () => {
    const data = Uint8Array.of(7, 0, 0xc0, 0x40, 0x3f, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f);
    const header = {
      u: { dtype: "U8", shape: [1], data_offsets: [0, 1] },
      h: { dtype: "F16", shape: [1], data_offsets: [1, 3] },
      b: { dtype: "BF16", shape: [1], data_offsets: [3, 5] },
      d: { dtype: "F64", shape: [1], data_offsets: [5, 13] },
    };
    const bytes = fileOf(header, data.length);
    bytes.set(data, bytes.length - data.length);
    const file = await open(bytes);
    expect([...(await file.read("h")), ...(await file.read("b")), ...(await file.read("d"))]).toEqual([
      -2, 0.75, 1.5,
    ]);
    expect(await file.readIntegers("u")).toEqual([7]);
    expect(await rejection(file.read("u"))).toBeInstanceOf(UnsupportedError);
    expect(await rejection(file.readIntegers("h"))).toBeInstanceOf(UnsupportedError);
    expect((await rejection(file.read("x"))).message).toBe("m.safetensors: has no tensor 'x'");
  });
});

const tensorsArbitrary = fc.dictionary(
  fc.string({ unit: "binary", maxLength: 6 }).filter((name) => name !== "__metadata__"),
  fc.oneof(
    fc.record({
      dtype: fc.constantFrom("F32" as const, "F16" as const, "BF16" as const),
      values: fc.array(fc.integer({ min: -128, max: 128 }), { maxLength: 8 }),
    }),
    fc.record({
      dtype: fc.constant("I64" as const),
      values: fc.array(fc.maxSafeInteger(), { maxLength: 5 }),
    }),
    fc.record({ dtype: fc.constant("U8" as const), values: fc.array(fc.nat(255), { maxLength: 5 }) }),
  ),
);

async function writeAll(tensors: Record<string, { dtype: TensorData["dtype"]; values: number[] }>) {
  const map = new Map<string, TensorData>();
  for (const [name, { dtype, values }] of Object.entries(tensors)) {
    const shape = [values.length];
    if (dtype === "I64") map.set(name, { dtype, shape, data: values });
    else if (dtype === "U8") map.set(name, { dtype, shape, data: Uint8Array.from(values) });
    else map.set(name, { dtype, shape, data: async () => Float32Array.from(values) });
  }
  return concatenate(writeSafetensors(map, { format: "pt" }));
}

test("what is written is read back, whatever the names and types", async () => {
  await fc.assert(
    fc.asyncProperty(tensorsArbitrary, async (tensors) => {
      const file = await open(await writeAll(tensors));
      expect(file.tensors.size).toBe(Object.keys(tensors).length);
      for (const [name, { dtype, values }] of Object.entries(tensors)) {
        const isInteger = dtype === "I64" || dtype === "U8";
        expect(isInteger ? await file.readIntegers(name) : [...(await file.read(name))]).toEqual(values);
      }
    }),
  );
});

test("a damaged file is refused with FormatError or is still a valid file", async () => {
  const damage = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 });
  await fc.assert(
    fc.asyncProperty(
      tensorsArbitrary,
      damage,
      fc.nat(12),
      fc.boolean(),
      async (tensors, changes, cut, isText) => {
        const whole = await writeAll(tensors);
        const bytes = whole.slice(0, Math.max(0, whole.length - (cut > 8 ? cut - 8 : 0)));
        for (const [at, value] of changes) {
          if (bytes.length === 0) break;
          // Digits, braces and quotes are likelier to reach the later checks than any byte is.
          bytes[at % bytes.length] = isText ? ('0123456789{}[]",:F'.charCodeAt(value % 18) ?? 0) : value;
        }
        try {
          const file = await open(bytes);
          let covered = 0;
          for (const [name, { begin, end }] of file.tensors) {
            covered += end - begin;
            expect((await file.readRaw(name)).length).toBe(end - begin);
          }
          expect(covered).toBeLessThanOrEqual(bytes.length);
        } catch (error) {
          expect(error).toBeInstanceOf(FormatError);
        }
      },
    ),
    { numRuns: 1500 },
  );
});

describe("writing", () => {
  test("data starts at a multiple of 8, wider types first, then names", async () => {
    const bytes = await writeAll({
      z: { dtype: "F32", values: [1] },
      a: { dtype: "F32", values: [2] },
      h: { dtype: "F16", values: [3] },
      i: { dtype: "I64", values: [4] },
    });
    const headerLength = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
    expect(headerLength % 8).toBe(0);
    const { tensors } = await open(bytes);
    const order = [...tensors].sort(([, a], [, b]) => a.begin - b.begin).map(([name]) => name);
    expect(order).toEqual(["i", "a", "z", "h"]);
  });

  test("refuses what would become infinite, a wrong size, and the reserved name", async () => {
    const write = (name: string, dtype: "F16" | "F32" | "BF16", shape: number[], values: number[]) =>
      concatenate(writeSafetensors(new Map([[name, { dtype, shape, data: Float32Array.from(values) }]])));
    expect((await rejection(write("w", "F16", [2], [1, 70000]))).message).toMatch(/'w' holds 70000.*F16/);
    expect((await rejection(write("w", "BF16", [1], [3.4e38]))).message).toMatch(/BF16/);
    expect((await rejection(write("w", "F32", [2], [1]))).message).toMatch(
      /'w': 1 values for the shape \(2\)/,
    );
    expect(await rejection(write("__metadata__", "F32", [1], [1]))).toBeInstanceOf(RangeError);
  });
});
