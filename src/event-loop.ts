/**
 * Lets timers, signals, pipes and pages have their turn. On wasm every promise of a loop is ready when it is
 * awaited, and what is ready never leaves the queue of microtasks: without this an AbortSignal's timer would not
 * fire before the loop ends.
 */
export function yieldToEventLoop(): Promise<void> {
  return new Promise((resolve) => {
    if (typeof setImmediate === "function") {
      setImmediate(resolve);
      return;
    }
    // A page has no setImmediate, and its timers wait 4 ms.
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}
