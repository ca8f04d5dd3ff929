import { describe, expect, test } from "vitest";
import { FormatError, UnsupportedError } from "../../src/errors.js";
import { openGguf } from "../../src/formats/gguf.js";
import { type ByteSource, bytesSource } from "../../src/formats/source.js";
import { f32Tensor, ggufFile, type TestFile } from "./gguf-file.js";
import { rejection } from "./helpers.js";

const open = (file: TestFile) => openGguf(bytesSource("m.gguf", ggufFile(file).bytes));

describe("what is read", () => {
  test("values of every type", async () => {
    const file = await open({
      metadata: [
        ["u8", ["u8", 255]],
        ["i8", ["i8", -128]],
        ["u16", ["u16", 65535]],
        ["i16", ["i16", -2]],
        ["u32", ["u32", 2 ** 32 - 1]],
        ["i32", ["i32", -3]],
        ["f32", ["f32", 1e-5]],
        ["exact", ["f32", Math.fround(1 / 3)]],
        ["yes", ["bool", true]],
        ["no", ["bool", false]],
        ["string", ["string", "né\uFEFF"]],
        ["u64", ["u64", 2n ** 53n]],
        ["i64", ["i64", -5n]],
        ["f64", ["f64", Math.PI]],
        ["strings", ["string", ["", "\uFEFFx"]]],
        ["floats", ["f32", [0.5, -2]]],
        ["longs", ["u64", [1n, 2n]]],
        ["flags", ["bool", [true, false]]],
        ["nothing", ["i32", []]],
      ],
    });
    expect(Object.fromEntries(file.metadata)).toEqual({
      ...{ u8: 255, i8: -128, u16: 65535, i16: -2, u32: 2 ** 32 - 1, i32: -3 },
      // Shorter than the f32 itself, 0.000009999999747378752; of a third there is nothing shorter that is it.
      ...{ f32: 1e-5, exact: expect.closeTo(1 / 3, 7) },
      ...{ yes: true, no: false, string: "né\uFEFF", u64: 2 ** 53, i64: -5, f64: Math.PI },
      ...{ strings: ["", "\uFEFFx"], floats: Float32Array.of(0.5, -2), longs: Float64Array.of(1, 2) },
      ...{ flags: Uint8Array.of(1, 0), nothing: new Int32Array() },
    });
    expect(Math.fround(file.metadata.get("exact") as number)).toBe(Math.fround(1 / 3));
  });

  test.each([2, 3])("tensors of version %d, their rows first, at the file's alignment", async (version) => {
    const q8 = { dims: [32, 2], type: 8, data: new Uint8Array(68).fill(7) };
    const file = await open({
      ...{ version, alignment: 64, metadata: [["general.alignment", ["u32", 64]]] },
      tensors: [
        ["a", f32Tensor([3, 2])],
        ["b", q8],
      ],
    });
    expect(file.version).toBe(version);
    const [a, b] = [file.tensors.get("a"), file.tensors.get("b")];
    expect(a).toMatchObject({ shape: [2, 3], type: { name: "F32" } });
    expect(b).toMatchObject({ shape: [2, 32], type: { name: "Q8_0", block: 32, bytes: 34 } });
    expect((a?.begin ?? 1) % 64).toBe(0);
    expect(b?.begin).toBe((a?.begin ?? 0) + 64);
    const into = new Uint8Array(8);
    await file.readRange("a", 16, into);
    expect([...new Float32Array(into.buffer)]).toEqual([4, 5]);
    expect((await rejection(file.readRange("a", 20, into))).message).toBe(
      "m.gguf: tensor 'a' has 24 bytes, asked for 8 at 20",
    );
    expect((await rejection(file.readRange("c", 0, into))).message).toBe("m.gguf: has no tensor 'c'");
  });

  test("a header of many pieces, without the tensors behind it", async () => {
    // Texts that lie over the ends of pieces of 64 KB and more.
    const texts = Array.from({ length: 30_000 }, (_, i) => `token ${i}`.repeat(1 + (i % 5)));
    const { bytes } = ggufFile({
      metadata: [
        ["texts", ["string", texts]],
        ["last", ["u32", 7]],
      ],
      tensors: [["w", f32Tensor([1 << 18])]],
    });
    const inner = bytesSource("m.gguf", bytes);
    let read = 0;
    const counted: ByteSource = {
      ...inner,
      read(offset, length) {
        read += length;
        return inner.read(offset, length);
      },
    };
    const file = await openGguf(counted);
    expect(file.metadata.get("texts")).toEqual(texts);
    expect(file.metadata.get("last")).toBe(7);
    const begin = file.tensors.get("w")?.begin ?? 0;
    // Once through the header, and not to the end of the data but for what the last piece has too much.
    expect(read).toBeLessThan(2 * begin);
  });
});

describe("what is refused", () => {
  const entry = ["a", ["u32", 1]] as const;
  const w = f32Tensor([4]);
  const patched = (file: TestFile, find: string, shift: number, bytes: number[]) => {
    const { bytes: all } = ggufFile(file);
    const at = Buffer.from(all).indexOf(find) + shift;
    all.set(bytes, at);
    return all;
  };
  const of = (file: TestFile) => ggufFile(file).bytes;
  const huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
  const cases: [
    what: string,
    bytes: Uint8Array,
    message: RegExp,
    kind?: typeof FormatError | typeof UnsupportedError,
  ][] = [
    ["an empty file", new Uint8Array(), /is not a GGUF file/],
    ["another file", new TextEncoder().encode("PK\u0003\u0004 and more"), /is not a GGUF file/],
    ["a file that ends in its header", of({}).subarray(0, 20), /the count of metadata keys needs 8 bytes/],
    ["a key twice", of({ metadata: [entry, entry] }), /has the metadata key 'a' twice/],
    [
      "a tensor twice",
      of({
        tensors: [
          ["w", w],
          ["w", w],
        ],
      }),
      /has the tensor 'w' twice/,
    ],
    [
      "more keys than bytes",
      patched({ metadata: [entry] }, "GGUF", 16, huge),
      /the count of metadata keys is/,
    ],
    ["more tensors than bytes", patched({}, "GGUF", 8, huge), /the count of tensors is/],
    [
      "a string past the end",
      patched({ metadata: [["s", ["string", "text"]]] }, "text", -8, huge),
      /the length of metadata 's' is/,
    ],
    [
      "a list past the end",
      patched({ metadata: [["abc", ["u8", [1]]]] }, "abc", 11, huge),
      /the length of metadata 'abc' is/,
    ],
    [
      "an unknown type of value",
      patched({ metadata: [entry] }, "a", 1, [13]),
      /metadata 'a' has the unknown type 13/,
    ],
    [
      "text that is not UTF-8",
      patched({ metadata: [["s", ["string", "text"]]] }, "text", 0, [0xff]),
      /metadata 's' is not UTF-8/,
    ],
    [
      "an alignment of three",
      of({ metadata: [["general.alignment", ["u32", 3]]] }),
      /'general.alignment' must be a power of two, got 3/,
    ],
    ["an alignment of zero", of({ metadata: [["general.alignment", ["u32", 0]]] }), /power of two, got 0/],
    ["no dimensions", of({ tensors: [["w", { ...w, dims: [] }]] }), /tensor 'w' has 0 dimensions/],
    [
      "five dimensions",
      of({ tensors: [["w", { ...w, dims: [1, 1, 1, 1, 4] }]] }),
      /tensor 'w' has 5 dimensions/,
    ],
    ["a dimension of zero", of({ tensors: [["w", { ...w, dims: [0] }]] }), /tensor 'w' has the shape \(0\)/],
    [
      "dimensions whose product is too large",
      of({ tensors: [["w", { ...w, dims: [2 ** 26, 2 ** 26] }]] }),
      /tensor 'w' has the shape/,
    ],
    [
      "half a block in a row",
      of({ tensors: [["w", { dims: [16], type: 8, data: new Uint8Array(34) }]] }),
      /rows that are no blocks of Q8_0/,
    ],
    [
      "an offset that is not aligned",
      of({ tensors: [["w", { ...w, offset: 4 }]] }),
      /its offset of 4 is no multiple/,
    ],
    ["data past the end", of({ tensors: [["w", { ...w, dims: [5] }]] }), /tensor 'w': data ends at byte/],
    [
      "overlapping data",
      of({
        tensors: [
          ["v", f32Tensor([16])],
          ["w", { ...w, offset: 32 }],
        ],
      }),
      /tensor 'w' overlaps/,
    ],
    ["a name of 64 bytes", of({ tensors: [["w".repeat(64), w]] }), /the name of tensor 0 has 64 bytes/],
    ["version 1", of({ version: 1 }), /version 1 of GGUF/, UnsupportedError],
    ["version 4", of({ version: 4 }), /version 4 of GGUF/, UnsupportedError],
    ["a big-endian file", of({ version: 0x03000000 }), /a big-endian GGUF file/, UnsupportedError],
    [
      "a list of lists",
      patched({ metadata: [["abc", ["u8", [1]]]] }, "abc", 7, [9]),
      /metadata 'abc' is a list of lists/,
      UnsupportedError,
    ],
    [
      "an unknown type of tensor",
      of({ tensors: [["w", { ...w, type: 4 }]] }),
      /tensor 'w' is of the unknown type 4/,
      UnsupportedError,
    ],
  ];
  test.each(cases)("%s", async (_, bytes, message, kind = FormatError) => {
    const error = await rejection(openGguf(bytesSource("m.gguf", bytes)));
    expect(error).toBeInstanceOf(kind);
    expect(error.message).toMatch(/^m\.gguf: /);
    expect(error.message).toMatch(message);
  });

  test("a length over the limit of a header, in a file that is large enough", async () => {
    const { bytes } = ggufFile({ metadata: [["s", ["string", "text"]]] });
    const at = Buffer.from(bytes).indexOf("text") - 8;
    new DataView(bytes.buffer).setBigUint64(at, 2n ** 29n, true);
    const inner = bytesSource("m.gguf", bytes);
    const large = {
      ...inner,
      size: 2 ** 33,
      read: (o: number, n: number) => inner.read(o, Math.min(n, bytes.length - o)),
    };
    const error = await rejection(openGguf(large));
    expect(error.message).toMatch(
      /^m\.gguf: the length of metadata 's' is 536870912, but only \d+ bytes are left$/,
    );
  });
});
