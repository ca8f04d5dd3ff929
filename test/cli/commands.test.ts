import { createHash } from "node:crypto";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { maxDifference, readGolden, relativeDifference } from "../golden.js";
import {
  BENIGN,
  HARMFUL,
  jsonLines,
  lines,
  oriflamme,
  parseLines,
  succeed,
  TINY,
  TRAIN,
  workshop,
} from "./run.js";

const folder = workshop({ adapter: true });
const numbers = (names: readonly string[]) =>
  Object.fromEntries(names.map((name) => [name, expect.any(Number)]));

describe("pretrain", () => {
  it("writes a Hugging Face folder, tokenizer included", async () => {
    expect((await readdir(join(folder(), "model"))).sort()).toEqual([
      "config.json",
      "generation_config.json",
      "metrics.jsonl",
      "model.safetensors",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
    const config = JSON.parse(await readFile(join(folder(), "model", "config.json"), "utf8"));
    expect(config).toMatchObject({
      model_type: "llama",
      hidden_size: 16,
      vocab_size: 258,
      max_position_embeddings: 64,
    });
  });

  it("prints a line a step, or one at the end", async () => {
    const args = ["pretrain", "--data", "text.txt", "text.txt", "--out", "again", "--config", "tiny.json"];
    const steps = await jsonLines(folder(), ...args);
    expect(steps.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5]);
    for (const line of steps) expect(line).toEqual(numbers(["step", "loss", "lr", "tokens_per_second"]));
    expect(parseLines(await readFile(join(folder(), "again/metrics.jsonl"), "utf8"))).toEqual(steps);
    expect(await succeed(folder(), ...args, "--steps", "2")).toMatch(/^again: 2 steps, loss \d\.\d+\n$/);
  });

  it("takes documents of JSON Lines beside texts, and measures the loss on held-out ones", async () => {
    await writeFile(join(folder(), "stories.jsonl"), lines([...HARMFUL, { prompt: "  " }]));
    const args = [
      "pretrain",
      "--data",
      "stories.jsonl",
      "text.txt",
      "--out",
      "mixed",
      "--config",
      "tiny.json",
    ];
    const measured = [...args, "--holdout", "benign.jsonl", "--holdout-every", "2"];
    const steps = await jsonLines(folder(), ...measured);
    const plain = ["step", "loss", "lr", "tokens_per_second"];
    for (const { step, ...rest } of steps) {
      const isMeasured = [2, 4, 5].includes(Number(step));
      expect({ step, ...rest }).toEqual(
        numbers(isMeasured ? [...plain, "holdout_loss", "bits_per_byte"] : plain),
      );
    }
    expect(await succeed(folder(), ...measured)).toMatch(
      /^mixed: 5 steps, loss \d\.\d+; held out \d\.\d{4} nats a token, \d\.\d{4} bits a byte\n$/,
    );
    // Measuring changes nothing of the training.
    const losses = async (...more: string[]) => (await jsonLines(folder(), ...more)).map(({ loss }) => loss);
    expect(await losses(...args)).toEqual(steps.map(({ loss }) => loss));
  });

  it("takes what the command line says over the file, and the file over the defaults", async () => {
    const hash = async (...args: string[]) => {
      await succeed(folder(), "pretrain", "--data", "text.txt", "--out", "seeded", ...args);
      return createHash("sha256")
        .update(await readFile(join(folder(), "seeded", "model.safetensors")))
        .digest("hex");
    };
    await writeFile(join(folder(), "seven.json"), JSON.stringify({ ...TINY, seed: 7 }));
    const [seven, same, eight, none] = [
      await hash("--config", "seven.json"),
      await hash("--config", "tiny.json", "--seed", "7"),
      await hash("--config", "seven.json", "--seed", "8"),
      await hash("--config", "tiny.json"),
    ];
    expect(same).toBe(seven);
    expect(new Set([seven, eight, none]).size).toBe(3);
  });
});

describe("train", () => {
  it("writes a PEFT folder, and a line a step", async () => {
    const steps = await jsonLines(folder(), ...TRAIN, "--out", "deep/in/adapter");
    expect(steps).toHaveLength(3);
    const names = ["step", "loss", "ce", "post", "benign", "lr", "tokens_per_second"];
    for (const [i, line] of steps.entries()) {
      expect(line).toEqual(numbers(names));
      expect(Object.keys(line)).toEqual(names);
      expect(line.step).toBe(i + 1);
      const { loss, ce, post, benign } = line as Record<string, number>;
      expect(loss).toBeCloseTo((ce ?? 0) + (post ?? 0) + (benign ?? 0), 6);
    }
    expect((await readdir(join(folder(), "deep/in/adapter"))).sort()).toEqual([
      "adapter_config.json",
      "adapter_model.safetensors",
      "metrics.jsonl",
      "oriflamme.json",
    ]);
    const metrics = await readFile(join(folder(), "deep/in/adapter/metrics.jsonl"), "utf8");
    expect(parseLines(metrics)).toEqual(steps);
    expect(await readdir(join(folder(), "deep/in"))).toEqual(["adapter"]);
    expect(await succeed(folder(), ...TRAIN, "--out", "deep/in/adapter")).toMatch(
      /^deep\/in\/adapter: 3 steps in [\d.]+ s, loss \d\.\d+\n$/,
    );
  });

  it("trains an adapter over stored weights, which commands then read over stored weights", async () => {
    await succeed(folder(), ...TRAIN, "--out", "stored", "--dtype", "q8_0");
    const over = ["--model", "model", "--adapter", "stored", "--dtype", "q8_0"];
    const scored = await jsonLines(folder(), "score", ...over, "--data", "harmful.jsonl", "--out", "s.jsonl");
    expect(scored).toHaveLength(HARMFUL.length);
    const generated = await jsonLines(folder(), "generate", ...over, "--prompt", "the", "--max-tokens", "2");
    expect(generated.at(-1)).toMatchObject({ done: true });
  });

  it("says what it left out", async () => {
    await writeFile(
      join(folder(), "late.jsonl"),
      lines([...HARMFUL, { prompt: "a", response: "b", onset: 1 }]),
    );
    const args = [...TRAIN, "--out", "late", "--harmful", "late.jsonl"];
    expect(await succeed(folder(), ...args)).toContain("left out: 1 harmful, 0 benign examples");
  });

  it("trains all weights where --config says so, and commands read the model over its base", async () => {
    await writeFile(join(folder(), "full.json"), JSON.stringify({ method: "full", lr: 1e-3 }));
    await succeed(folder(), ...TRAIN, "--out", "whole", "--config", "full.json");
    expect(await readdir(join(folder(), "whole"))).toContain("model.safetensors");
    const over = ["--model", "model", "--adapter", "whole"];
    const [token] = await jsonLines(folder(), "generate", ...over, "--prompt", "the", "--max-tokens", "1");
    expect(token).toMatchObject({ id: expect.any(Number), flag: expect.any(Number) });
    // A Hugging Face folder of its own, whose vocabulary ends with the flag.
    const merged = ["--model", "whole", "--ids", "1,2", "--max-tokens", "1"];
    expect(await jsonLines(folder(), "generate", ...merged)).toHaveLength(2);
  });

  it("gives each category of the data a flag, which generate and score name", async () => {
    const categories = ["wolves", "foxes"];
    const harmful = HARMFUL.map((example, i) => ({ ...example, category: categories[i % 2] }));
    await writeFile(join(folder(), "kinds.jsonl"), lines(harmful));
    const data = ["--harmful", "kinds.jsonl", "--categories", "data"];
    await succeed(folder(), ...TRAIN, ...data, "--out", "kinds");
    const facts = JSON.parse(await readFile(join(folder(), "kinds", "oriflamme.json"), "utf8"));
    expect(facts.categories).toEqual(["foxes", "wolves"]);
    const over = ["--model", "model", "--adapter", "kinds"];
    const [token] = await jsonLines(folder(), "generate", ...over, "--prompt", "the", "--max-tokens", "1");
    expect(Object.keys(token ?? {})).toEqual(["id", "text", "flag", "flag_category", "logprob"]);
    const [score] = await jsonLines(folder(), "score", ...over, "--data", "kinds.jsonl", "--out", "k.jsonl");
    expect(categories).toContain(score?.flag_category);
  });

  it("gives the same adapter for the same seed, on any number of threads", async () => {
    const bytes = async (out: string, ...args: string[]) => {
      await succeed(folder(), ...TRAIN, "--out", out, "--deterministic", ...args);
      return (await readFile(join(folder(), out, "adapter_model.safetensors"))).toString("base64");
    };
    const one = await bytes("a", "--seed", "1", "--threads", "1");
    expect(await bytes("b", "--seed", "1", "--threads", "1")).toBe(one);
    expect(await bytes("c", "--seed", "1", "--threads", "3")).toBe(one);
    expect(await bytes("d", "--seed", "2", "--threads", "1")).not.toBe(one);
  });
});

describe("logits", () => {
  it("writes (T, V), with a row more under an adapter", async () => {
    const read = async (...args: string[]) => {
      await succeed(
        folder(),
        "logits",
        "--model",
        "model",
        "--ids",
        "256,1,2",
        "--out",
        "l.safetensors",
        ...args,
      );
      const file = await readGolden(join(folder(), "l.safetensors"));
      const values = await file.floats("logits");
      expect(file.names).toEqual(["logits"]);
      await file.close();
      return values;
    };
    expect(await read()).toHaveLength(3 * 258);
    expect(await read("--adapter", "adapter")).toHaveLength(3 * 259);
    const [plain, stored] = [await read("--threads", "1"), await read("--dtype", "bf16", "--threads", "1")];
    // 8 bits of fraction, over a model of two layers.
    expect(maxDifference(stored, plain)).toBeGreaterThan(0);
    expect(relativeDifference(stored, plain)).toBeLessThan(0.05);
    const [line] = await jsonLines(
      folder(),
      "logits",
      "--model",
      "model",
      "--ids",
      "1",
      "--out",
      "l.safetensors",
    );
    expect(line).toMatchObject({ out: "l.safetensors", shape: [1, 258] });
  });
});

describe("generate", () => {
  const generate = ["generate", "--model", "model"];

  it("prints a line a token, then one at the end", async () => {
    const found = await jsonLines(
      folder(),
      ...generate,
      "--prompt",
      "the",
      "--max-tokens",
      "4",
      "--ignore-eos",
    );
    expect(found).toHaveLength(5);
    for (const line of found.slice(0, 4)) {
      expect(Object.keys(line)).toEqual(["id", "text", "flag", "logprob"]);
      expect(line).toEqual({
        id: expect.any(Number),
        text: expect.any(String),
        flag: null,
        logprob: expect.any(Number),
      });
      expect(line.logprob).toBeLessThanOrEqual(0);
    }
    const last = found[4] ?? {};
    expect(Object.keys(last)).toEqual(["done", "reason", "ids", "text", "flagged"]);
    expect(last).toMatchObject({ done: true, reason: "length", flagged: false });
    expect(last.ids).toEqual(found.slice(0, 4).map(({ id }) => id));
    expect(last.text).toBe(
      found
        .slice(0, 4)
        .map(({ text }) => text)
        .join(""),
    );
  });

  it("goes on from several prompts at once, each with its number, over a cache of f16", async () => {
    const prompts = ["the", "a cat"];
    const settings = [...generate, "--max-tokens", "3", "--ignore-eos", "--kv", "f16"];
    const found = await jsonLines(folder(), ...settings, ...prompts.flatMap((text) => ["--prompt", text]));
    for (const [i, text] of prompts.entries()) {
      const own = found.flatMap(({ index, ...line }) => (index === i ? [line] : []));
      expect(own).toHaveLength(4);
      const single = await jsonLines(folder(), ...settings, "--prompt", text);
      expect(own.at(-1)).toEqual(single.at(-1));
    }
  });

  it("says P(flag) with an adapter, and obeys decision and policy", async () => {
    const flagged = [
      ...generate,
      "--adapter",
      "adapter",
      "--prompt",
      "the",
      "--max-tokens",
      "3",
      "--ignore-eos",
    ];
    const plain = await jsonLines(folder(), ...flagged);
    for (const { flag } of plain.slice(0, -1)) {
      expect(flag).toBeGreaterThan(0);
      expect(flag).toBeLessThan(0.5);
    }
    expect(await jsonLines(folder(), ...flagged, "--decision", "threshold=0")).toEqual([
      { done: true, reason: "flag", ids: [], text: "", flagged: true },
    ]);
    const replaced = ["--decision", "cumulative=0", "--policy", "replace=No = no."];
    expect(await jsonLines(folder(), ...flagged, ...replaced)).toEqual([
      { done: true, reason: "replaced", ids: [], text: "No = no.", flagged: true },
    ]);
    const shadow = ["--decision", "ema=0.5,0", "--policy", "annotate=shadow"];
    expect((await jsonLines(folder(), ...flagged, ...shadow)).at(-1)).toMatchObject({
      reason: "length",
      flagged: true,
    });
  });

  it("takes --ids as they are, and adds BOS to --prompt", async () => {
    const end = async (...args: string[]) =>
      (await jsonLines(folder(), ...generate, "--max-tokens", "3", ...args)).at(-1);
    expect(await end("--prompt", "ab")).toEqual(await end("--ids", "256,97,98"));
    // What looks like a special token is text.
    expect(await end("--prompt", "<bos>")).toEqual(
      await end("--ids", ["256", ...Buffer.from("<bos>")].join()),
    );
  });

  it("draws by its seed", async () => {
    const draw = async (...args: string[]) =>
      (
        await jsonLines(
          folder(),
          ...generate,
          "--prompt",
          "a",
          "--max-tokens",
          "12",
          "--temperature",
          "1",
          ...args,
        )
      ).at(-1)?.ids;
    expect(await draw("--seed", "5")).toEqual(await draw("--seed", "5"));
    expect(await draw("--seed", "5")).not.toEqual(await draw("--seed", "6"));
    expect(await draw()).toEqual(await draw("--seed", "0"));
  });

  it("prints text on stdout and how it ended on stderr", async () => {
    const result = await oriflamme(folder(), [
      ...generate,
      "--prompt",
      "the",
      "--max-tokens",
      "2",
      "--ignore-eos",
    ]);
    expect(result).toMatchObject({ code: 0, stderr: "\n[length]\n" });
    expect(result.stdout).not.toContain("\u001b");
  });
});

describe("score", () => {
  const score = [
    "score",
    "--model",
    "model",
    "--adapter",
    "adapter",
    "--data",
    "data.jsonl",
    "--out",
    "out.jsonl",
  ];
  const data = [
    ...HARMFUL,
    ...BENIGN,
    { prompt: "no answer" },
    { messages: [{ role: "user", content: "hi" }] },
  ];
  const names = ["index", "flag_max", "flag_cumulative", "first_flag", "harmful"];

  it("writes a line an input, and the same with --json", async () => {
    await writeFile(join(folder(), "data.jsonl"), lines(data));
    const printed = await jsonLines(folder(), ...score, "--max-tokens", "5");
    expect(printed).toHaveLength(data.length);
    for (const [i, line] of printed.entries()) {
      expect(Object.keys(line)).toEqual(names);
      expect(line).toMatchObject({
        index: i,
        first_flag: null,
        harmful: data[i] && "harmful" in data[i] ? data[i].harmful : null,
      });
      const { flag_max: max = 0, flag_cumulative: cumulative = 0 } = line as Record<string, number>;
      expect(max).toBeGreaterThan(0);
      expect(cumulative).toBeGreaterThanOrEqual(max);
      // Five tokens and the position after the last.
      expect(1 - cumulative).toBeGreaterThan((1 - max) ** 6 - 1e-6);
    }
    expect(parseLines(await readFile(join(folder(), "out.jsonl"), "utf8"))).toEqual(printed);
    expect(await succeed(folder(), ...score)).toBe(`out.jsonl: ${data.length} of ${data.length} inputs\n`);
  });

  it("in shards is the whole", async () => {
    const whole = await jsonLines(folder(), ...score);
    const shards = [
      await jsonLines(folder(), ...score, "--shard", "0/2"),
      await jsonLines(folder(), ...score, "--shard", "1/2"),
    ];
    expect(shards.map((shard) => shard.map(({ index }) => index))).toEqual([
      [0, 2, 4, 6],
      [1, 3, 5],
    ]);
    const joined = shards.flat().sort((a, b) => Number(a.index) - Number(b.index));
    expect(joined).toEqual(whole);
  });
});

describe("pipes", () => {
  it("that are closed early are no error", async () => {
    const args = [
      "pretrain",
      "--data",
      "text.txt",
      "--out",
      "piped",
      "--config",
      "tiny.json",
      "--steps",
      "1000000",
      "--json",
    ];
    const result = await oriflamme(folder(), args, { onOutput: (_, __, close) => close() });
    expect(result).toMatchObject({ code: 0, stderr: "" });
    // It did not train on for nobody.
    expect(await readdir(folder())).not.toContain("piped");
  });
});
