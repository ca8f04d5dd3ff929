import { afterEach, describe, expect, it, vi } from "vitest";
import { failureOf, jobViews, STATE, wordOf } from "../../src/backends/wasm/job.js";
import { Threads } from "../../src/backends/wasm/threads.js";
import { BackendError } from "../../src/errors.js";

/** A module in the text of the format's sections: `boom` traps, `good` does nothing, both over a range. */
const MODULE = Uint8Array.of(
  ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
  // type: (i32, i32) -> ()
  ...[0x01, 0x06, 0x01, 0x60, 0x02, 0x7f, 0x7f, 0x00],
  // import: env.memory, shared, of 2 to 2 pages
  ...[0x02, 0x10, 0x01, 0x03, 0x65, 0x6e, 0x76, 0x06, 0x6d, 0x65, 0x6d, 0x6f, 0x72, 0x79, 0x02, 0x03, 0x02],
  0x02,
  // two functions of type 0
  ...[0x03, 0x03, 0x02, 0x00, 0x00],
  // global: mutable i32 of 0
  ...[0x06, 0x06, 0x01, 0x7f, 0x01, 0x41, 0x00, 0x0b],
  // export: boom, good, scratch
  ...[0x07, 0x19, 0x03, 0x04, 0x62, 0x6f, 0x6f, 0x6d, 0x00, 0x00, 0x04, 0x67, 0x6f, 0x6f, 0x64, 0x00, 0x01],
  ...[0x07, 0x73, 0x63, 0x72, 0x61, 0x74, 0x63, 0x68, 0x03, 0x00],
  // code: unreachable; nothing
  ...[0x0a, 0x08, 0x02, 0x03, 0x00, 0x00, 0x0b, 0x02, 0x00, 0x0b],
);

const open: Threads[] = [];
afterEach(() => {
  for (const threads of open.splice(0)) threads.dispose();
  vi.restoreAllMocks();
});

type Call = (begin: number, end: number) => void;

/** Threads whose caller runs `own` where the workers run the module's functions. */
async function start(count: number, own: { boom?: Call; good?: Call } = {}, module?: WebAssembly.Module) {
  const memory = new WebAssembly.Memory({ initial: 2, maximum: 2, shared: true });
  const nothing = () => {};
  const instance = { exports: { boom: nothing, good: nothing, ...own } } as unknown as WebAssembly.Instance;
  const threads = new Threads([{ memory, instance }], count);
  open.push(threads);
  await threads.start(module ?? (await WebAssembly.compile(MODULE)), () => ({ scratch: 0 }));
  return { threads, views: jobViews(threads.job) };
}

/** Waits until something holds; the test's own limit is the time for it. */
async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 1));
}

describe("worker threads", () => {
  it("take their share, and every chunk is run once", async () => {
    const seen: [number, number][] = [];
    let workersAreUp = false;
    const { threads, views } = await start(3, {
      // The caller holds the job open until both workers have taken it up.
      good: (begin, end) => {
        seen.push([begin, end]);
        const isIdle = (i: number) => Atomics.load(views.control, wordOf(i)) === STATE.called;
        while (workersAreUp && (isIdle(0) || isIdle(1)));
      },
    });
    threads.run("good", [], 1000, 100);
    const chunks = seen.length;
    expect(seen[0]?.[0]).toBe(0);
    expect(seen.at(-1)?.[1]).toBe(1000);
    seen.forEach(([begin], i) => {
      if (i > 0) expect(begin).toBe(seen[i - 1]?.[1]);
    });
    await until(() => threads.ready === 2);
    workersAreUp = true;
    seen.length = 0;
    threads.run("good", [], 1000, 100);
    expect(seen.length).toBeLessThan(chunks);
  });

  it("surface a trap in a worker with its message, and go on", async () => {
    const { threads, views } = await start(2, {
      boom: () => {
        while (failureOf(views) === undefined);
      },
    });
    await until(() => threads.ready === 1);
    for (let turn = 0; turn < 3; turn++) {
      let thrown: unknown;
      try {
        threads.run("boom", [], 2, 2);
      } catch (error) {
        thrown = error;
      }
      expect(thrown).toBeInstanceOf(BackendError);
      expect((thrown as BackendError).message).toMatch(/'boom' failed: unreachable/);
      expect((thrown as BackendError).cause).toBeInstanceOf(WebAssembly.RuntimeError);
      expect(() => threads.run("good", [], 2, 2)).not.toThrow();
    }
    expect(threads.ready).toBe(1);
  });

  it("surface what the caller's own share throws as the cause", async () => {
    const cause = new RangeError("a stack that overflows");
    const { threads } = await start(2, {
      boom: () => {
        throw cause;
      },
    });
    // No worker is up yet, so the caller is alone.
    expect(() => threads.run("boom", [], 2, 2)).toThrow(expect.objectContaining({ cause }));
    expect(() => threads.run("good", [], 2, 2)).not.toThrow();
  });

  it("go to sleep, and wake for the next job", async () => {
    let isOpen = true;
    const { threads, views } = await start(2, {
      good: () => {
        while (isOpen && Atomics.load(views.control, wordOf(0)) === STATE.called);
      },
    });
    await until(() => threads.ready === 1);
    for (let turn = 0; turn < 5; turn++) {
      await until(() => Atomics.load(views.control, wordOf(0)) === STATE.asleep);
      isOpen = true;
      threads.run("good", [], 8, 2);
      isOpen = false;
    }
  });

  it("are not called up where there is less to do than threads", async () => {
    const { threads, views } = await start(4);
    await until(() => threads.ready === 3);
    const words = () => [0, 1, 2].map((i) => Atomics.load(views.control, wordOf(i)));
    await until(() => words().every((state) => state === STATE.asleep));
    threads.run("good", [], 1, 4);
    expect(words()).toEqual([STATE.asleep, STATE.asleep, STATE.asleep]);
    threads.run("good", [], 1000, 2);
    expect(words().slice(1)).toEqual([STATE.asleep, STATE.asleep]);
  });

  it("that do not start are reported once and done without", async () => {
    const warn = vi.spyOn(console, "warn").mockImplementation(() => {});
    // Imports what no worker gives it.
    const wrong = Uint8Array.of(
      ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00, 0x02, 0x08, 0x01, 0x01, 0x61, 0x01, 0x62],
      ...[0x03, 0x7f, 0x00],
    );
    const { threads } = await start(3, {}, await WebAssembly.compile(wrong));
    await until(() => warn.mock.calls.length > 0);
    // The other worker's failure and both exits have come in when a later worker has come and gone.
    const { threads: later } = await start(2);
    await until(() => later.ready === 1);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(warn).toHaveBeenCalledTimes(1);
    expect(String(warn.mock.calls[0])).toMatch(/^oriflamme: a worker thread is missing.*: .*Import/s);
    expect(threads.ready).toBe(0);
    expect(() => threads.run("good", [], 100, 3)).not.toThrow();
  });

  it("end when disposed of, even while they come up", async () => {
    const warn = vi.spyOn(console, "warn").mockImplementation(() => {});
    const { threads, views } = await start(3);
    threads.dispose();
    const [early] = [await start(2)];
    await until(() => early.threads.ready === 1);
    early.threads.dispose();
    early.threads.dispose();
    expect(early.threads.ready).toBe(0);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect([0, 1].map((i) => Atomics.load(views.control, wordOf(i)))).toEqual([STATE.stop, STATE.stop]);
    expect(warn).not.toHaveBeenCalled();
  });
});
