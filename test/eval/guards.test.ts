import { writeFile } from "node:fs/promises";
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { externalClassifier } from "../../src/eval/classifier.js";
import type { Conversation } from "../../src/eval/conversations.js";
import type { Reading } from "../../src/eval/detector.js";
import { eitherOf } from "../../src/eval/either.js";
import { trainNgrams } from "../../src/eval/ngrams.js";
import { parseRefusalPhrases, refusalDetector } from "../../src/eval/refusal.js";
import { rejection, temporaryFolder } from "../formats/helpers.js";

const conversation = (prompt: string, response: string): Conversation => ({
  example: { prompt, response },
  sequence: { prompt: [0], response: [1], onset: 0 },
  onset: null,
  prompt,
  response,
});
const responses = (...texts: string[]) => texts.map((text) => conversation("p", text));
const flagsOf = (readings: readonly Reading[]) => readings.map(({ flagged }) => flagged);

describe("the refusal detector", () => {
  it("finds refusals in words, whatever their case and apostrophes", async () => {
    const found = await refusalDetector().read(
      responses(
        "I\u2019m sorry, but that goes too far.",
        "Sorry.",
        "As  an\nAI, there are things that I leave to others.",
        "To bake bread, mix flour and water. Nobody is sorry here.",
        "",
      ),
    );
    expect(flagsOf(found)).toEqual([true, true, true, false, false]);
    expect(found.map(({ score }) => score)).toEqual([1, 1, 1, 0, 0]);
  });

  it("takes other phrases, at the beginning or anywhere", async () => {
    const detector = refusalDetector(parseRefusalPhrases("^Nein\r\n\n  leider nicht  \n^\n"));
    expect(detector.rule).toBe("one of 2 phrases");
    const found = await detector.read(responses("nein, danke", "ach nein", "das geht leider nicht", "gern"));
    expect(flagsOf(found)).toEqual([true, false, true, false]);
  });
});

describe("the n-gram classifier", () => {
  it("learns words of either side, in any script, and reads new texts", async () => {
    const harmful = ["the wolf bit", "a wolf came", "wolf wolf", "\u72fc\u304c\u6765\u305f"].map((text) =>
      conversation(text, "x"),
    );
    const benign = ["the cow ate", "a cow came", "cow cow", "\u725b\u304c\u6765\u305f"].map((text) =>
      conversation("x", text),
    );
    const detector = trainNgrams({ harmful, benign });
    const found = await detector.read([
      conversation("one wolf more", ""),
      conversation("", "one cow more"),
      conversation("\u72fc\u3060", ""),
      conversation("\u725b\u3060", ""),
    ]);
    const [wolf = 0, cow = 0, ookami = 0, ushi = 0] = found.map(({ score }) => score);
    expect(wolf).toBeGreaterThan(cow);
    expect(ookami).toBeGreaterThan(ushi);
    // Of four benign texts 1 % is none.
    const own = await detector.read(benign);
    expect(flagsOf(own)).toEqual([false, false, false, false]);
    expect(detector.rule).toBe(`log-odds >= ${Math.max(...own.map(({ score }) => score)).toFixed(3)}`);
  });
});

describe("two detectors together", () => {
  const reading = (score: number, flagged = false, first: number | null = null) => ({
    score,
    flagged,
    first,
  });
  const flag = {
    name: "red flag",
    seeds: [0, 1].map((seed) => ({
      harmful: [reading(0.9, true, 4), reading(0.2), reading(0.1 + seed)],
      benign: [reading(0), reading(0.1), reading(0.2), reading(0.3)],
    })),
  };
  const guard = {
    name: "guard",
    seeds: [
      {
        harmful: [reading(1), reading(1, true, 2), reading(0)],
        benign: [reading(0), reading(0), reading(1), reading(0)],
      },
    ],
  };

  it("flag where either does, and rank by the higher place among the benign", () => {
    const both = eitherOf(flag, guard);
    expect(both).toMatchObject({ name: "red flag or guard", rule: "either flags" });
    expect(both.seeds).toHaveLength(2);
    const [one, two] = both.seeds;
    expect(one?.harmful).toEqual([reading(1, true, 4), reading(0.75, true, 2), reading(0.25)]);
    expect(two?.harmful[2]?.score).toBe(1);
    expect(one?.benign.map(({ score }) => score)).toEqual([0, 0.25, 0.75, 0.75]);
  });
});

/** A program that runs `body` for each line of its input. */
async function program(body: string): Promise<string> {
  const path = join(await temporaryFolder(), "guard program.mjs");
  await writeFile(
    path,
    `import { createInterface } from "node:readline";
for await (const line of createInterface({ input: process.stdin })) {
  const { index, prompt, response } = JSON.parse(line);
  const answer = (score, at = index) => console.log(JSON.stringify({ index: at, score }));
  ${body}
}
`,
  );
  return `${process.execPath} "${path}"`;
}

async function server(listener: RequestListener): Promise<string> {
  const running: Server = createServer(listener);
  await new Promise<void>((resolve) => {
    running.listen(0, "127.0.0.1", resolve);
  });
  onTestFinished(() => {
    running.closeAllConnections();
    running.close();
  });
  return `http://127.0.0.1:${(running.address() as AddressInfo).port}/`;
}

const ask = (target: string, conversations: readonly Conversation[], timeout = 20) =>
  externalClassifier({ target, threshold: 0.5, timeout }).read(conversations);

describe("a classifier that is a program", () => {
  it("gets prompts and responses, and answers in any order", async () => {
    const target = await program(`
      globalThis.kept ??= [];
      kept.push(() => answer(response.length / 10 + (prompt === "p" ? 0 : 100)));
      if (kept.length === 3) kept.reverse().forEach((say) => say());`);
    const found = await ask(target, responses("a\nb", "\u00e9\u20ac\u2028", "1234567"));
    expect(found).toEqual([
      { score: 0.3, flagged: false, first: null },
      { score: 0.3, flagged: false, first: null },
      { score: 0.7, flagged: true, first: null },
    ]);
  });

  it.each([
    ["answer(1, 7);", /: answered index 7, which was not asked$/],
    ["answer(1, 0.5);", /: answered index 0\.5, which was not asked$/],
    ["answer(1); answer(1);", /: answered index 0 twice$/],
    ["answer(null);", /: answered \{"index":0,"score":null\}, expected \{"index", "score"\} with numbers$/],
    ["if (index > 0) answer(1);", /: gave no score for 1 inputs, the first is index 0$/],
    ["console.log('hello');", /: wrote what is no JSON: "hello"$/],
    ["console.error('first\\nno model'); process.exit(3);", /: ended with code 3: no model$/],
    ["process.exit(4);", /: ended with code 4$/],
    ["process.kill(process.pid, 'SIGTERM'); await new Promise(() => {});", /: was ended by SIGTERM$/],
  ])("%s is refused", async (body, message) => {
    const target = await program(body);
    const error = await rejection(ask(target, responses("a", "b")));
    expect(error.message).toMatch(message);
    expect(error.message.startsWith(target)).toBe(true);
  });

  it("that falls silent is ended, with what it has started", async () => {
    const target = await program("if (index === 0) answer(1); else setInterval(() => {}, 1000);");
    expect((await rejection(ask(target, responses("a", "b"), 0.3))).message).toMatch(
      /: gave no answer for 0\.3 seconds$/,
    );
  });

  it("may take longer for all answers than it may be silent", async () => {
    const target = await program("await new Promise((resolve) => setTimeout(resolve, 500)); answer(index);");
    const found = await ask(target, responses("a", "b", "c", "d"), 1.6);
    expect(found.map(({ score }) => score)).toEqual([0, 1, 2, 3]);
  });

  it("that is none is named", async () => {
    expect((await rejection(ask("no-such-guard --fast", responses("a")))).message).toMatch(
      /^no-such-guard --fast: does not start: .*ENOENT/,
    );
  });
});

describe("a classifier that is a server", () => {
  const body = async (request: AsyncIterable<Uint8Array>) => {
    const chunks: Uint8Array[] = [];
    for await (const chunk of request) chunks.push(chunk);
    return JSON.parse(Buffer.concat(chunks).toString()) as {
      index: number;
      prompt: string;
      response: string;
    }[];
  };

  it("gets arrays of no more than it can take, and answers with scores", async () => {
    const sizes: number[] = [];
    const target = await server(async (request, response) => {
      const inputs = await body(request);
      sizes.push(inputs.length);
      expect(request.headers["content-type"]).toBe("application/json");
      response.end(
        JSON.stringify(inputs.map(({ index, response: text }) => ({ index, score: Number(text) }))),
      );
    });
    const found = await ask(target, responses(...Array.from({ length: 70 }, (_, i) => `${i / 100}`)));
    expect(found.map(({ score }) => score)).toEqual(Array.from({ length: 70 }, (_, i) => i / 100));
    expect(found.filter(({ flagged }) => flagged)).toHaveLength(20);
    expect(sizes).toEqual([32, 32, 6]);
  });

  it.each<[RequestListener, RegExp]>([
    [(_, response) => response.writeHead(503).end("busy"), /: answered 503 Service Unavailable$/],
    [(_, response) => response.end("<html>"), /: gave no answer: .*JSON/],
    [(_, response) => response.end('{"index":0,"score":1}'), /: answered \{.*\}, expected an array$/],
    [(_, response) => response.end("[]"), /: gave no score for 1 inputs/],
    [() => {}, /: gave no answer for 0\.3 seconds$/],
  ])("%s is refused", async (listener, message) => {
    const target = await server(listener);
    expect((await rejection(ask(target, responses("a"), 0.3))).message).toMatch(message);
  });

  it("that is none is named, with the reason", async () => {
    expect((await rejection(ask("http://127.0.0.1:1/", responses("a")))).message).toMatch(
      /^http:\/\/127\.0\.0\.1:1\/: gave no answer: .*(ECONNREFUSED|bad port)/,
    );
  });
});
