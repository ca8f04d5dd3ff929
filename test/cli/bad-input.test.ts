import { cp, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { editSafetensors, fail, lines, succeed, TEXT, TINY, TRAIN, workshop } from "./run.js";

const folder = workshop({ adapter: true });
let count = 0;

/** A copy of a folder of the workshop with one of its files changed. */
async function altered(name: string, file: string, change: (path: string) => Promise<void>): Promise<string> {
  const copy = `${name}-${count++}`;
  await cp(join(folder(), name), join(folder(), copy), { recursive: true });
  await change(join(folder(), copy, file));
  return copy;
}

async function written(text: string | Uint8Array, extension: string): Promise<string> {
  const name = `file-${count++}.${extension}`;
  await writeFile(join(folder(), name), text);
  return name;
}

const generate = (model: string, ...more: string[]) => [
  "generate",
  "--model",
  model,
  "--prompt",
  "a",
  "--json",
  ...more,
];

/** JSON of a file, with some fields set. */
const withFields = (fields: object) => async (path: string) =>
  writeFile(path, JSON.stringify({ ...JSON.parse(await readFile(path, "utf8")), ...fields }));

describe("a model", () => {
  it("that is missing, empty, or no model", async () => {
    expect(await fail(folder(), 1, ...generate("nowhere"))).toBe("nowhere: no such file or folder");
    await mkdir(join(folder(), "empty"));
    expect(await fail(folder(), 1, ...generate("empty"))).toMatch(/^empty: is not a model/);
    expect(await fail(folder(), 1, ...generate("text.txt"))).toMatch(/^text\.txt: is not a model/);
    for (const extension of ["gguf", "bin"]) {
      const name = await written("neither GGUF nor llama2.c", extension);
      expect(await fail(folder(), 1, ...generate(name))).toContain(name);
    }
  });

  const weights = "model.safetensors";
  it.each<[string, RegExp, (path: string) => Promise<void>]>([
    [
      "cut short",
      /model\.safetensors: /,
      async (path) => writeFile(path, (await readFile(path)).subarray(0, -100)),
    ],
    [
      "cut in its header",
      /model\.safetensors: /,
      async (path) => writeFile(path, (await readFile(path)).subarray(0, 100)),
    ],
    ["of no bytes", /model\.safetensors: /, (path) => writeFile(path, "")],
    [
      "whose header's length is a lie",
      /model\.safetensors: /,
      async (path) => {
        const bytes = await readFile(path);
        bytes.writeBigUInt64LE(2n ** 62n);
        await writeFile(path, bytes);
      },
    ],
    [
      "whose tensors overlap",
      /model\.safetensors: .*(overlap|tensor)/,
      (path) =>
        editSafetensors(path, (header) => {
          const [first, second] = Object.values(header).filter(({ data_offsets: range }) => range);
          if (first && second)
            second.data_offsets = [
              first.data_offsets[0],
              first.data_offsets[0] + second.data_offsets[1] - second.data_offsets[0],
            ];
        }),
    ],
    [
      "whose offsets are not its shape's",
      /model\.safetensors: .*tensor/,
      (path) =>
        editSafetensors(path, (header) => {
          for (const { shape } of Object.values(header)) shape?.push(2);
        }),
    ],
    [
      "that holds NaN",
      /model\.safetensors: tensor 'model\.embed_tokens\.weight' holds NaN at index 3$/,
      (path) =>
        editSafetensors(path, (header, data) => {
          data.writeFloatLE(Number.NaN, (header["model.embed_tokens.weight"]?.data_offsets[0] ?? 0) + 12);
        }),
    ],
  ])("with weights %s", async (_, message, change) => {
    const model = await altered("model", weights, change);
    const line = await fail(folder(), 1, ...generate(model));
    expect(line).toMatch(message);
    expect(line).toContain(`${model}/${weights}`);
  });

  it.each<[object, RegExp]>([
    [{ vocab_size: 300 }, /tensor 'model\.embed_tokens\.weight' has shape \(258, 16\), expected \(300, 16\)/],
    [{ hidden_size: "big" }, /config\.json: 'hidden_size'/],
    [{ num_hidden_layers: 0 }, /config\.json: 'num_hidden_layers'/],
    [{ num_hidden_layers: 3 }, /has no tensor 'model\.layers\.2\./],
    [{ num_hidden_layers: 1 }, /tensor 'model\.layers\.1\..*' has no place/],
    [{ model_type: "frobnicate" }, /config\.json: 'model_type' of 'frobnicate'/],
    [{ quantization_config: {} }, /config\.json: 'quantization_config'/],
  ])("whose config.json says %j", async (fields, message) => {
    expect(
      await fail(folder(), 1, ...generate(await altered("model", "config.json", withFields(fields)))),
    ).toMatch(message);
  });

  it.each(["config.json", "tokenizer.json"])("whose %s is not JSON", async (name) => {
    const model = await altered("model", name, (path) => writeFile(path, "{\n not\n json }"));
    expect(await fail(folder(), 1, ...generate(model))).toMatch(
      new RegExp(`^${model}/${name}: .*not valid JSON`),
    );
  });
});

describe("an adapter", () => {
  it("that is missing, or for another base, or damaged", async () => {
    expect(await fail(folder(), 1, ...generate("model", "--adapter", "nowhere"))).toBe(
      "nowhere: no such file or folder",
    );
    await succeed(
      folder(),
      "pretrain",
      "--data",
      "text.txt",
      "--out",
      "other",
      "--config",
      "tiny.json",
      "--seed",
      "9",
    );
    const other = await fail(folder(), 1, ...generate("other", "--adapter", "adapter"));
    expect(other).toMatch(/^adapter: is for another base: the weights/);
    const wide = await written(JSON.stringify({ ...TINY, hiddenSize: 32 }), "json");
    await succeed(folder(), "pretrain", "--data", "text.txt", "--out", "wide", "--config", wide);
    expect(await fail(folder(), 1, ...generate("wide", "--adapter", "adapter"))).toMatch(
      /^adapter\/adapter_model\.safetensors: the adapter is for another base: tensor '.*' has shape/,
    );
    const cut = await altered("adapter", "adapter_model.safetensors", async (path) =>
      writeFile(path, (await readFile(path)).subarray(0, 5000)),
    );
    expect(await fail(folder(), 1, ...generate("model", "--adapter", cut))).toContain(
      `${cut}/adapter_model.safetensors: `,
    );
    const strange = await altered("adapter", "oriflamme.json", withFields({ vocabSize: 99 }));
    expect(await fail(folder(), 1, ...generate("model", "--adapter", strange))).toMatch(
      /another base: its vocabulary has 99/,
    );
    const odd = await altered("adapter", "adapter_config.json", withFields({ r: "many" }));
    expect(await fail(folder(), 1, ...generate("model", "--adapter", odd))).toMatch(
      /adapter_config\.json: 'r' must/,
    );
  });
});

describe("data", () => {
  const good = JSON.stringify({ prompt: "a", response: "b" });
  it.each<[string, RegExp]>([
    [`${good}\nnot json\n`, /^(\S+):2: is not valid JSON/],
    [`${good}\n\n[1]\n`, /^(\S+):3: is not a JSON object/],
    [`${good}\n{"response":"x"}\n`, /^(\S+):2: has neither 'prompt' nor 'messages'/],
    [`{"prompt":5}\n`, /^(\S+):1: 'prompt' must be a string/],
    [`{"prompt":"a","response":"b","onset":9}\n`, /^(\S+):1: 'onset' must be/],
    ["", /^(\S+): holds no examples$/],
    ["\n\n", /^(\S+): holds no examples$/],
  ])("%j", async (text, message) => {
    const data = await written(text, "jsonl");
    const score = [
      "score",
      "--model",
      "model",
      "--adapter",
      "adapter",
      "--data",
      data,
      "--out",
      "never.jsonl",
    ];
    for (const args of [
      score,
      [...TRAIN, "--harmful", data, "--out", "never"],
      [...TRAIN, "--benign", data, "--out", "never"],
    ]) {
      expect(message.exec(await fail(folder(), 1, ...args))?.[1]).toBe(data);
    }
    expect((await readdir(folder())).filter((name) => name.startsWith("never"))).toEqual([]);
  });

  it("of which nothing can be used", async () => {
    const unanswered = await written(lines([{ prompt: "a" }, { prompt: "b" }]), "jsonl");
    expect(await fail(folder(), 2, ...TRAIN, "--harmful", unanswered, "--out", "never")).toMatch(
      /^harmful: none of the 2/,
    );
    expect(await fail(folder(), 2, ...TRAIN, "--benign", unanswered, "--out", "never")).toMatch(
      /^benign: none of the 2/,
    );
  });

  it("that is missing, a folder, or no text", async () => {
    expect(await fail(folder(), 1, ...TRAIN, "--harmful", "none.jsonl", "--out", "never")).toMatch(
      /^none\.jsonl: no such/,
    );
    expect(await fail(folder(), 1, ...TRAIN, "--harmful", "model", "--out", "never")).toMatch(
      /^model: is a folder/,
    );
    const pretrain = (data: string) => [
      "pretrain",
      "--out",
      "never",
      "--config",
      "tiny.json",
      "--data",
      data,
    ];
    expect(await fail(folder(), 1, ...pretrain("none.txt"))).toMatch(/^none\.txt: no such/);
    expect(await fail(folder(), 1, ...pretrain("model"))).toMatch(/^model: is a folder/);
    const blank = await written("\n \n", "txt");
    expect(await fail(folder(), 1, ...pretrain(blank))).toBe(`${blank}: holds no text to train on`);
    const latin1 = await written(Uint8Array.of(0x63, 0xe9, 0x21), "txt");
    expect(await fail(folder(), 1, ...pretrain(latin1))).toBe(`${latin1}: is not UTF-8 text`);
    expect(await readdir(folder())).not.toContain("never");
  });

  it("whose prompt is longer than the context, before anything is scored", async () => {
    const data = await written(lines([{ prompt: "a", response: "b" }, { prompt: TEXT }]), "jsonl");
    const score = [
      "score",
      "--model",
      "model",
      "--adapter",
      "adapter",
      "--data",
      data,
      "--out",
      "never.jsonl",
      "--json",
    ];
    expect(await fail(folder(), 1, ...score)).toBe(
      `${data}, input 1: its prompt has ${TEXT.length + 1} tokens, the model takes 1 to 64`,
    );
    // Training leaves such an example out.
    expect(
      await succeed(
        folder(),
        ...TRAIN,
        "--benign",
        await written(
          lines([
            { prompt: "a", response: "b" },
            { prompt: TEXT, response: "x" },
          ]),
          "jsonl",
        ),
        "--out",
        "cut",
      ),
    ).toContain("left out: 0 harmful, 1 benign");
  });
});

describe("--config", () => {
  const pretrain = ["pretrain", "--data", "text.txt", "--out", "never", "--config"];
  const train = [...TRAIN, "--out", "never", "--config"];

  it("that is missing or a folder", async () => {
    for (const args of [pretrain, train]) {
      expect(await fail(folder(), 1, ...args, "none.json")).toBe("none.json: no such file or folder");
      expect(await fail(folder(), 1, ...args, "model")).toBe("model: is a folder, expected a file of JSON");
    }
  });

  it.each<[string[], string, RegExp]>([
    [pretrain, '{"nope":1}', /'nope' is no setting; there are hiddenSize, /],
    [pretrain, '{"toString":1}', /'toString' is no setting/],
    [pretrain, '{"steps":"x"}', /'steps' must be a number, got "x"/],
    [pretrain, '{"steps":null}', /'steps' must be a number, got null/],
    [pretrain, '{"steps":0}', /'steps' must be a positive integer/],
    [pretrain, '{"layers":1.5}', /'layers' must be a positive integer/],
    [pretrain, '{"lr":-1}', /'lr' must be a number above 0/],
    [pretrain, '{"warmup":-1}', /'warmup' must be a number from 0/],
    [pretrain, '{"beta2":1}', /'beta2' must be below 1/],
    [pretrain, '{"ropeTheta":0}', /'ropeTheta' must be/],
    [pretrain, '{"contextLength":1}', /'contextLength' must be at least 2/],
    [pretrain, '{"hiddenSize":7}', /'hiddenSize' 7 must be an even multiple of 'heads' 4/],
    [pretrain, '{"kvHeads":3}', /'kvHeads' 3 must divide 'heads' 4/],
    [pretrain, '{"dtype":"f8"}', /'dtype' must be f32, f16 or bf16, got 'f8'/],
    [pretrain, '{"seed":1.5}', /'seed' must be an integer/],
    [pretrain, "{\n not json", /is not JSON/],
    [pretrain, "[]", /must hold a JSON object, got \[\]/],
    [pretrain, "null", /must hold a JSON object, got null/],
    [train, '{"nope":1}', /'nope' is no setting; there are steps, lr, /],
    [train, '{"loss":{"nope":1}}', /'loss\.nope' is no setting; there are ce, /],
    [train, '{"loss":3}', /'loss' must be an object, got 3/],
    [train, '{"loss":null}', /'loss' must be an object, got null/],
    [train, '{"lr":"fast"}', /'lr' must be a number, got "fast"/],
    [train, '{"categories":"wolves"}', /'categories' must be a list of names, got "wolves"/],
    [train, '{"reuse":[{}]}', /'reuse' must be a list of names, got \[{}\]/],
    [train, '"text"', /must hold a JSON object/],
  ])("%j: %s", async (args, text, message) => {
    const config = await written(text, "json");
    const line = await fail(folder(), 1, ...args, config);
    expect(line.startsWith(`${config}: `)).toBe(true);
    expect(line).toMatch(message);
    expect(await readdir(folder())).not.toContain("never");
  });

  it.each<[string, RegExp]>([
    ['{"rank":0}', /^rank must be an integer from 1, got 0/],
    ['{"loss":{"reduction":"max"}}', /^reduction must be mean or sum/],
    ['{"placement":"random"}', /^placement must be/],
    ['{"categories":["a","a"]}', /^categories: 'a' is empty or comes twice/],
    ['{"reuse":["<nope>"]}', /^'<nope>' is no token/],
    ['{"decay":"linear"}', /^decay must be cosine or constant/],
    ['{"targets":["zz"]}', /^targets: 'zz' is none of the model's layers/],
    ['{"targets":"q"}', /^targets must be/],
    ['{"harmfulBatch":0,"benignBatch":0}', /^a batch must hold/],
  ])("%s, which only training can judge", async (text, message) => {
    expect(await fail(folder(), 2, ...train, await written(text, "json"))).toMatch(message);
  });

  it("that makes training diverge", async () => {
    const config = await written(JSON.stringify({ ...TINY, lr: 1e30, clip: 1e30, warmup: 0 }), "json");
    expect(await fail(folder(), 1, ...pretrain, config)).toMatch(/^step 2/);
    expect(await readdir(folder())).not.toContain("never");
  });

  it("that asks for more memory than there is", async () => {
    const config = await written('{"hiddenSize":1048576,"intermediateSize":1048576}', "json");
    expect(await fail(folder(), 1, ...pretrain, config)).toMatch(/memory|bytes/);
  });
});
