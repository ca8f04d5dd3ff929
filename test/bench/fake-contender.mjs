// A contender for tests: `fake-contender.mjs NAME LOG ANSWERS`. It notes in LOG when a turn begins and ends, and gives
// the answers (JSON) one after the other, the last one from then on.

import { appendFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout } from "node:timers/promises";

const [name, log, text] = process.argv.slice(2);
const { introduction = { ready: { description: name } }, answers } = JSON.parse(text);
process.stdout.write(`${JSON.stringify(introduction)}\n`);
let turn = 0;
for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  appendFileSync(log, `${name} begins ${order.milliseconds} ${order.passes}\n`);
  await setTimeout(5);
  appendFileSync(log, `${name} ends\n`);
  const answer = answers[Math.min(turn++, answers.length - 1)];
  if (answer === "die") process.exit(3);
  process.stdout.write(typeof answer === "string" ? `${answer}\n` : `${JSON.stringify(answer)}\n`);
}
