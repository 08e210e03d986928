import { readFileSync } from 'node:fs';
import { setInterval } from 'node:timers';

/** What some work took of this process and of the backends that it used. */
export interface Usage {
  readonly seconds: number;
  /** The most memory of this process, in MB. */
  readonly clientMb: number;
  /** The most memory of a backend without shared memory, in MB; null when the server is on another machine. */
  readonly serverMb: number | null;
  /** Processor time of the backends; null when the server is on another machine. */
  readonly serverCpuSeconds: number | null;
}

const EVERY_MS = 25;
const MB = 1024 * 1024;
/** USER_HZ, which is the same on all Linux systems. */
const TICKS_PER_SECOND = 100;

/** Does work, and observes this process and the backends with these ids. */
export async function observed(backends: readonly number[], work: () => Promise<unknown>): Promise<Usage> {
  const cpuBefore = cpuOf(backends);
  let clientBytes = 0;
  let serverBytes: number | null = null;
  const sample = () => {
    clientBytes = Math.max(clientBytes, process.memoryUsage.rss());
    for (const backend of backends) {
      const bytes = privateBytes(backend);
      if (bytes !== null) serverBytes = Math.max(serverBytes ?? 0, bytes);
    }
  };
  const timer = setInterval(sample, EVERY_MS);
  const startedAt = performance.now();
  try {
    await work();
  } finally {
    clearInterval(timer);
  }
  const seconds = (performance.now() - startedAt) / 1000;
  sample();
  const cpuAfter = cpuOf(backends);
  return {
    seconds,
    clientMb: clientBytes / MB,
    serverMb: serverBytes === null ? null : serverBytes / MB,
    serverCpuSeconds: cpuBefore === null || cpuAfter === null ? null : cpuAfter - cpuBefore,
  };
}

function cpuOf(backends: readonly number[]): number | null {
  const times = backends.map(cpuSeconds);
  return times.some((time) => time === null)
    ? null
    : times.reduce((sum: number, time) => sum + (time ?? 0), 0);
}

function cpuSeconds(backend: number): number | null {
  const text = readOfBackend(backend, 'stat');
  if (text === null) return null;
  // The fields after the name: the 12th and 13th are the ticks in user mode and in the kernel.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

function privateBytes(backend: number): number | null {
  const kilobytes = /^RssAnon:\s+(\d+) kB$/m.exec(readOfBackend(backend, 'status') ?? '')?.[1];
  return kilobytes === undefined ? null : Number(kilobytes) * 1024;
}

/** Null when no process of Postgres has this id here. */
function readOfBackend(backend: number, file: 'stat' | 'status'): string | null {
  try {
    if (readFileSync(`/proc/${backend}/comm`, 'utf8').trim() !== 'postgres') return null;
    return readFileSync(`/proc/${backend}/${file}`, 'utf8');
  } catch {
    return null;
  }
}
