import { createServer, type NetConnectOpts, type Server, Socket } from 'node:net';
import { Transform } from 'node:stream';
import { parseDatabaseUrl } from '../src/settings/database-url.ts';
import {
  answersAreComplete,
  questionIsComplete,
  readMessageTypes,
  rewriteProcessId,
  splitReady,
} from './wire.ts';

/** A proxy for a server whose connections can be cut. It passes TLS on, but cannot read it. */
export interface Proxy {
  readonly host: string;
  readonly port: number;
  /** The server's URL, through the proxy. */
  readonly url: string;
  /** How many clients are connected now. */
  readonly connections: number;
  /** The types of the messages that clients sent after the handshake, one list per connection. */
  readonly conversations: readonly (readonly string[])[];
  /** Resets the connections; with a text, only those whose client has sent it, ignoring case. */
  cut(said?: string): void;
  /** Resets the next connection whose client sends the text; resolves when that has happened. */
  cutAt(text: string, moment: Moment): Promise<void>;
  /** Holds back the next message with the text. Resolves when it has arrived, with a function that lets it pass. */
  holdAt(text: string): Promise<() => void>;
  /** Holds back the ReadyForQuery that ends the answer to the text. Resolves as `holdAt`, before the rest passes. */
  holdReadyAt(text: string): Promise<() => void>;
  /** Stops passing data on, in old and new connections, without closing them. */
  pause(): void;
  /** Passes on everything that was held back. */
  resume(): void;
  /** Resets new connections at once. */
  refuse(): void;
  /** Takes new connections again. */
  accept(): void;
  stop(): Promise<void>;
}

/** Before the server gets the text; while it runs; or after it has run, so that only the answer is lost. */
export type Moment = 'before' | 'during' | 'after';

export interface ProxyOptions {
  /** Sends clients another process id than that of their backend, as poolers do. They then cannot cancel. */
  readonly rewriteProcessId?: boolean;
}

interface Trap {
  readonly text: string;
  readonly moment: Moment | 'hold' | 'ready';
  readonly sprung: () => void;
  /** Resolves when the held data may pass. */
  readonly released: Promise<void>;
}

/** The state that all connections of a proxy share. */
interface Switches {
  readonly options: ProxyOptions;
  traps: readonly Trap[];
  /** Resolves when data may pass. */
  gate: Promise<void>;
  openGate: () => void;
  accepting: boolean;
}

/** One client and its connection to the server. */
interface Link {
  readonly live: boolean;
  readonly messageTypes: readonly string[];
  said(text: string): boolean;
  cut(): void;
}

const HOST = '127.0.0.1';

/** Starts a proxy on a free port, in front of the server of a URL, on TCP or a Unix socket. */
export async function startProxy(serverUrl: string, options: ProxyOptions = {}): Promise<Proxy> {
  const links = new Set<Link>();
  const conversations: (readonly string[])[] = [];
  const switches: Switches = {
    options,
    traps: [],
    gate: Promise.resolve(),
    openGate: () => undefined,
    accepting: true,
  };
  const target = addressOf(serverUrl);
  let paused = false;
  const server = createServer((client) => {
    if (!switches.accepting) {
      client.on('error', () => undefined);
      client.resetAndDestroy();
      return;
    }
    const link = connect(client, target, switches);
    links.add(link);
    conversations.push(link.messageTypes);
    client.once('close', () => links.delete(link));
  });
  const port = await listen(server);
  const cut = (said = '') => {
    for (const link of links) if (link.said(said)) link.cut();
  };
  return {
    host: HOST,
    port,
    url: urlThrough(serverUrl, port),
    conversations,
    get connections() {
      // A cut connection is removed before its close event.
      return [...links].filter(({ live }) => live).length;
    },
    cut,
    cutAt: (text, moment) => setTrap(switches, text, moment, Promise.resolve()),
    holdAt: (text) => hold(switches, text, 'hold'),
    holdReadyAt: (text) => hold(switches, text, 'ready'),
    pause() {
      if (paused) return;
      paused = true;
      switches.gate = new Promise((resolve) => {
        switches.openGate = resolve;
      });
    },
    resume() {
      paused = false;
      switches.openGate();
    },
    refuse() {
      switches.accepting = false;
    },
    accept() {
      switches.accepting = true;
    },
    stop() {
      cut();
      switches.openGate();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

async function hold(switches: Switches, text: string, moment: 'hold' | 'ready'): Promise<() => void> {
  let release = () => {};
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  await setTrap(switches, text, moment, released);
  return release;
}

function setTrap(
  switches: Switches,
  text: string,
  moment: Trap['moment'],
  released: Promise<void>,
): Promise<void> {
  return new Promise((sprung) => {
    switches.traps = [...switches.traps, { text: text.toLowerCase(), moment, sprung, released }];
  });
}

function connect(client: Socket, target: NetConnectOpts, switches: Switches): Link {
  const upstream = new Socket().connect(target);
  let heard = '';
  const readTypes = readMessageTypes();
  const messageTypes: string[] = [];
  /** When it is set, the server's answers do not reach the client. */
  let lastTrap: Trap | undefined;

  const cut = () => {
    client.resetAndDestroy();
    reset(upstream);
  };
  const spring = (trap: Trap) => {
    cut();
    trap.sprung();
  };
  const toServer = pipeStage(switches, (chunk) => {
    messageTypes.push(...readTypes(chunk));
    const start = heard.length;
    heard += chunk.toString('latin1').toLowerCase();
    if (lastTrap === undefined) {
      const trap = takeTrap(switches, heard, start);
      if (trap?.moment === 'hold') {
        trap.sprung();
        return trap.released.then(() => chunk);
      }
      lastTrap = trap;
    }
    if (lastTrap?.moment === 'before') {
      spring(lastTrap);
      return undefined;
    }
    // With an incomplete statement, the server would do nothing.
    if (lastTrap?.moment !== 'during' || !questionIsComplete(heard)) return chunk;
    client.resetAndDestroy();
    // A normal end: after a reset, the server would drop unread data.
    upstream.once('close', lastTrap.sprung);
    upstream.write(chunk);
    upstream.destroySoon();
    return undefined;
  });
  const readable = switches.options.rewriteProcessId ? rewriteProcessId() : (chunk: Buffer) => chunk;
  let lost: Buffer = Buffer.alloc(0);
  const toClient = pipeStage(switches, (chunk, pass) => {
    if (lastTrap === undefined) return readable(chunk);
    if (lastTrap.moment === 'ready') {
      if (!answersAreComplete(chunk)) return chunk;
      const { released, sprung } = lastTrap;
      lastTrap = undefined;
      sprung();
      const [rest, ready] = splitReady(chunk);
      pass(rest);
      return released.then(() => ready);
    }
    lost = Buffer.concat([lost, chunk]);
    if (answersAreComplete(lost)) spring(lastTrap);
    return undefined;
  });

  join(client, toServer, upstream, switches);
  join(upstream, toClient, client, switches);
  return {
    get live() {
      return !client.destroyed;
    },
    messageTypes,
    said: (text) => heard.includes(text.toLowerCase()),
    cut,
  };
}

/** Takes the trap whose text is complete with the last piece, so that it applies to no other connection. */
function takeTrap(switches: Switches, heard: string, lastPiece: number): Trap | undefined {
  const found = switches.traps.find(({ text }) =>
    // Starts a little earlier, since the text may arrive in two pieces.
    heard.includes(text, Math.max(0, lastPiece - text.length + 1)),
  );
  switches.traps = switches.traps.filter((trap) => trap !== found);
  return found;
}

/** Passes data while the gate is open. The step may change, drop or delay it. */
function pipeStage(
  switches: Switches,
  step: (chunk: Buffer, pass: (data: Buffer) => void) => Buffer | undefined | Promise<Buffer>,
): Transform {
  return new Transform({
    async transform(chunk: Buffer, _encoding, done) {
      await switches.gate;
      done(null, await step(chunk, (data) => this.push(data)));
    },
  });
}

/** Passes data from one socket to the other, and also its end or reset. */
function join(source: Socket, stage: Transform, sink: Socket, switches: Switches): void {
  source.on('error', () => undefined);
  source.once('close', async () => {
    await switches.gate;
    if (!source.readableEnded && !sink.writableEnded) reset(sink);
  });
  source.pipe(stage).pipe(sink);
}

/** Resets a TCP connection. A Unix socket has no reset, and is closed. */
function reset(socket: Socket): void {
  if (socket.remoteAddress === undefined) socket.destroy();
  else socket.resetAndDestroy();
}

export function addressOf(serverUrl: string): NetConnectOpts {
  const { host = 'localhost', port = 5432 } = parseDatabaseUrl('the server', serverUrl);
  return host.startsWith('/') ? { path: `${host}/.s.PGSQL.${port}` } : { host, port };
}

export function urlThrough(serverUrl: string, port: number): string {
  const url = new URL(serverUrl);
  url.searchParams.delete('host');
  url.searchParams.delete('port');
  url.hostname = HOST;
  url.port = String(port);
  return url.href;
}

export function listen(server: Server): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, HOST, () => {
      const address = server.address();
      resolve(typeof address === 'object' && address !== null ? address.port : 0);
    });
  });
}
