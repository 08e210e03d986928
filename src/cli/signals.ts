const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/**
 * The signals that ask a process to end, as an AbortSignal. Repeated ones change nothing: npm passes on what the
 * terminal has sent already, and a clean stop is a matter of a second.
 */
export function signalsAsAbort(): { readonly signal: AbortSignal; readonly release: () => void } {
  const controller = new AbortController();
  const listeners = SIGNALS.map((name) => {
    const listener = () => controller.abort(new Error(name));
    process.on(name, listener);
    return { name, listener };
  });
  return {
    signal: controller.signal,
    release() {
      for (const { name, listener } of listeners) process.off(name, listener);
    },
  };
}
