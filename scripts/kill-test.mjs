// Kills trainings with SIGKILL again and again, resumes them, and compares the results with those of runs that were
// never stopped, by SHA-256. Run after `npm run build`.
//
//   node scripts/kill-test.mjs [--kills 50] [--steps 40] [--seed 0]
//
// Runs of `train`, with all in it that draws random numbers, and of `pretrain` take turns on a tiny model. Each
// process gets, by chance, one or two threads, a checkpoint every one to three steps, and its death: at a random
// moment of its life, while it writes a checkpoint, or while it writes the result; after one to five deaths it may
// end. Then weights must have the undisturbed run's bytes, metrics.jsonl its steps (but for the speed), and nothing
// may lie beside the result. Says for each death what it found, and exits with 1 where anything differs.

import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { watch } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Random } from "../dist/index.js";

const MAIN = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));
const WEIGHTS = { train: "adapter_model.safetensors", pretrain: "model.safetensors" };

const { values } = parseArgs({
  options: {
    kills: { type: "string", default: "50" },
    steps: { type: "string", default: "40" },
    seed: { type: "string", default: "0" },
  },
});
const [kills, steps, seed] = [Number(values.kills), Number(values.steps), Number(values.seed)];
const random = new Random(seed);
const folder = await mkdtemp(join(tmpdir(), "oriflamme-kill-"));
try {
  await killAll();
} finally {
  await rm(folder, { recursive: true, force: true });
}

async function killAll() {
  await prepare();
  const references = { train: await reference("train"), pretrain: await reference("pretrain") };
  const found = { random: 0, checkpoint: 0, result: 0, unfinished: 0 };
  let killed = 0;
  let runs = 0;
  for (; killed < kills; runs++) {
    const command = runs % 2 === 0 ? "train" : "pretrain";
    const { args, lifetime, result } = references[command];
    const place = join(folder, `run-${runs}`);
    await mkdir(place);
    const deaths = Math.min(kills - killed, 1 + random.below(5));
    for (let death = 0; ; ) {
      const how = death < deaths ? ["random", "random", "checkpoint", "result"][random.below(4)] : null;
      const options = [
        ...["--resume", "--checkpoint-every", String(1 + random.below(3))],
        ...["--threads", String(1 + random.below(2))],
      ];
      const ended = await start(place, [...args, ...options], how, random.uniform() * lifetime);
      if (ended.signal === null) {
        if (ended.code !== 0) throw new Error(`run ${runs}: exit ${ended.code}: ${ended.stderr}`);
        break;
      }
      death++;
      killed++;
      found[how]++;
      const everything = await readdir(place, { recursive: true });
      const unfinished = everything.find((name) => name.endsWith(`.partial-${ended.pid}`));
      if (unfinished) found.unfinished++;
      console.log(
        `death ${killed} of ${kills}: ${command} ${runs}, at ${how === "random" ? "any time" : `its ${how}`}, ` +
          `${await stepsKept(place)} steps in metrics.jsonl${unfinished ? `; left ${unfinished}` : ""}`,
      );
    }
    const outcome = await outcomeOf(command, place);
    if (outcome !== result) throw new Error(`run ${runs}: ${outcome} is not the undisturbed run's ${result}`);
    const left = await readdir(place);
    if (left.join() !== "out") throw new Error(`run ${runs}: left ${left.join(", ")}`);
    await rm(place, { recursive: true });
  }
  console.log(
    `${killed} deaths in ${runs} runs: ${found.random} at any time, ${found.checkpoint} at a checkpoint, ` +
      `${found.result} at the result, ${found.unfinished} amid a write; every result as undisturbed`,
  );
}

/** Data, and a base model for `train`. */
async function prepare() {
  const write = (name, text) => writeFile(join(folder, name), text);
  const lines = (items) => items.map((item) => `${JSON.stringify(item)}\n`).join("");
  const animals = ["cat", "rat", "bat", "cow", "sow", "hen", "fox"];
  await write("text.txt", animals.map((who) => `the ${who} sat on the mat.\n`).join("\n"));
  await write(
    "harmful.jsonl",
    lines(animals.map((who) => ({ prompt: `the ${who}`, response: "ate the hen", onset: 4 }))),
  );
  await write("benign.jsonl", lines(animals.map((who) => ({ prompt: `the ${who}`, response: "sat here" }))));
  const random = { dropout: 0.1, adversarial: { share: 0.25, steps: 2 }, accumulate: 2, bucket: 2 };
  const small = { rank: 4, harmfulBatch: 2, benignBatch: 2 };
  await write("train.json", JSON.stringify({ ...random, ...small }));
  const size = { hiddenSize: 32, layers: 2, heads: 2, kvHeads: 1, intermediateSize: 48, contextLength: 64 };
  await write("model.json", JSON.stringify({ ...size, batch: 2, steps: 5 }));
  const made = await start(folder, [
    ...["pretrain", "--data", "text.txt", "--out", "model", "--config", "model.json", "--threads", "1"],
  ]);
  if (made.code !== 0) throw new Error(made.stderr);
}

/** What an undisturbed run comes to, and how long it lives in milliseconds. */
async function reference(command) {
  const file = (name) => join(folder, name);
  const data = {
    train: [
      ...["--model", file("model"), "--harmful", file("harmful.jsonl"), "--benign", file("benign.jsonl")],
      ...["--config", file("train.json")],
    ],
    pretrain: ["--data", file("text.txt"), "--config", file("model.json")],
  };
  const args = [command, ...data[command], "--steps", String(steps), "--deterministic", "--out", "out"];
  const place = join(folder, command);
  await mkdir(place);
  const begun = performance.now();
  const { code, stderr } = await start(place, [...args, "--threads", "1", "--checkpoint-every", "1"]);
  if (code !== 0) throw new Error(stderr);
  return { args, lifetime: performance.now() - begun, result: await outcomeOf(command, place) };
}

/**
 * Runs the command line in a folder until it ends, or until it is killed: `how` says when.
 * @param delay milliseconds after which `random` kills
 */
function start(cwd, args, how = null, delay = 0) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [MAIN, ...args], { cwd, stdio: ["ignore", "ignore", "pipe"] });
    const kill = () => child.kill("SIGKILL");
    const timer = how === "random" ? setTimeout(kill, delay) : undefined;
    const watchers = how === "checkpoint" || how === "result" ? onUnfinished(cwd, how, kill) : [];
    let stderr = "";
    child.stderr.setEncoding("utf8").on("data", (text) => {
      stderr += text;
    });
    child.on("error", reject);
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      for (const watcher of watchers) watcher.close();
      resolve({ code, signal, stderr, pid: child.pid });
    });
  });
}

/** Kills as soon as an unfinished file shows: the result, or one of the first checkpoints. */
function onUnfinished(cwd, how, kill) {
  const watchers = [];
  // Created, written, renamed: a checkpoint shows several times.
  let left = 1 + random.below(12);
  const watchCheckpoints = () => {
    try {
      const seen = (_, name) => {
        if (name?.includes(".partial-") && --left === 0) kill();
      };
      watchers.push(watch(join(cwd, "out.checkpoint"), seen));
    } catch {
      // It is not there yet: the folder around it tells when it comes.
    }
  };
  watchers.push(
    watch(cwd, (_, name) => {
      if (how === "result" && name?.startsWith("out.partial-")) kill();
      if (how === "checkpoint" && name === "out.checkpoint" && watchers.length === 1) watchCheckpoints();
    }),
  );
  if (how === "checkpoint") watchCheckpoints();
  return watchers;
}

/** The digest of the weights and of the steps' numbers. */
async function outcomeOf(command, place) {
  const hash = createHash("sha256").update(await readFile(join(place, "out", WEIGHTS[command])));
  const lines = (await readFile(join(place, "out", "metrics.jsonl"), "utf8")).trimEnd().split("\n");
  for (const line of lines) {
    const { tokens_per_second: _, ...numbers } = JSON.parse(line);
    hash.update(JSON.stringify(numbers));
  }
  return hash.digest("hex");
}

async function stepsKept(place) {
  const text = await readFile(join(place, "out.checkpoint", "metrics.jsonl"), "utf8").catch(() => "");
  return text.split("\n").length - 1;
}
