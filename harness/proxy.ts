import { createServer, type NetConnectOpts, type Server, Socket } from 'node:net';
import { Transform } from 'node:stream';
import { parseDatabaseUrl } from '../src/settings/database-url.ts';
import { answersAreComplete, questionIsComplete, readMessageTypes, rewriteProcessId } from './wire.ts';

/** A cable to a server that can be cut. What goes through TLS it passes on, but cannot read. */
export interface Proxy {
  readonly host: string;
  readonly port: number;
  /** The server's URL, by way of the proxy. */
  readonly url: string;
  /** How many clients are connected now. */
  readonly connections: number;
  /** The types of the messages that clients have sent after the handshake, one list for each connection there was. */
  readonly conversations: readonly (readonly string[])[];
  /** Resets the connections; given a text, those whose client has sent it, in whatever case. */
  cut(said?: string): void;
  /** Resets the next connection whose client sends the text; resolves when that has happened. */
  cutAt(text: string, moment: Moment): Promise<void>;
  /** Keeps back the next message that has the text; resolves when it is there, with what lets it go on. */
  holdAt(text: string): Promise<() => void>;
  /** Passes nothing on any more, in old connections and new ones, and closes none. */
  pause(): void;
  /** Passes on everything that was held back. */
  resume(): void;
  /** Resets new connections at once. */
  refuse(): void;
  /** Takes new connections again. */
  accept(): void;
  stop(): Promise<void>;
}

/** The server never gets the text; or it works on it; or it has done it, and only its answer is lost. */
export type Moment = 'before' | 'during' | 'after';

export interface ProxyOptions {
  /** Tells clients another process id than their backend's, as poolers do. They then cannot cancel. */
  readonly rewriteProcessId?: boolean;
}

interface Trap {
  readonly text: string;
  readonly moment: Moment | 'hold';
  readonly sprung: () => void;
  /** Resolves when what is held may go on. */
  readonly released: Promise<void>;
}

/** What all connections of a proxy share. */
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

/** Starts a proxy on a free port, in front of the server of a URL, be it on TCP or on a Unix socket. */
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
      // A connection that was cut is gone before its close is told.
      return [...links].filter(({ live }) => live).length;
    },
    cut,
    cutAt: (text, moment) => setTrap(switches, text, moment, Promise.resolve()),
    async holdAt(text) {
      let release = () => {};
      const released = new Promise<void>((resolve) => {
        release = resolve;
      });
      await setTrap(switches, text, 'hold', released);
      return release;
    },
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
  /** Once it is there, the server's answers do not reach the client. */
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
    // With a part of a statement the server would do nothing.
    if (lastTrap?.moment !== 'during' || !questionIsComplete(heard)) return chunk;
    client.resetAndDestroy();
    // An end in order: on a reset the server would drop what it has not read.
    upstream.once('close', lastTrap.sprung);
    upstream.write(chunk);
    upstream.destroySoon();
    return undefined;
  });
  const readable = switches.options.rewriteProcessId ? rewriteProcessId() : (chunk: Buffer) => chunk;
  let lost: Buffer = Buffer.alloc(0);
  const toClient = pipeStage(switches, (chunk) => {
    if (lastTrap === undefined) return readable(chunk);
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

/** The trap whose text came with the last piece of what was heard, which is then no trap for others any more. */
function takeTrap(switches: Switches, heard: string, lastPiece: number): Trap | undefined {
  const found = switches.traps.find(({ text }) =>
    // From a little earlier, as the text may have come in two pieces.
    heard.includes(text, Math.max(0, lastPiece - text.length + 1)),
  );
  switches.traps = switches.traps.filter((trap) => trap !== found);
  return found;
}

/** Lets data through while the gate is open; the step may change it, keep it, or take its time. */
function pipeStage(
  switches: Switches,
  step: (chunk: Buffer) => Buffer | undefined | Promise<Buffer>,
): Transform {
  return new Transform({
    async transform(chunk: Buffer, _encoding, done) {
      await switches.gate;
      done(null, await step(chunk));
    },
  });
}

/** The one's data goes to the other, and so does its end, be it in order or not. */
function join(source: Socket, stage: Transform, sink: Socket, switches: Switches): void {
  source.on('error', () => undefined);
  source.once('close', async () => {
    await switches.gate;
    if (!source.readableEnded && !sink.writableEnded) reset(sink);
  });
  source.pipe(stage).pipe(sink);
}

/** A Unix socket knows no reset. */
function reset(socket: Socket): void {
  if (socket.remoteAddress === undefined) socket.destroy();
  else socket.resetAndDestroy();
}

function addressOf(serverUrl: string): NetConnectOpts {
  const { host = 'localhost', port = 5432 } = parseDatabaseUrl('the server', serverUrl);
  return host.startsWith('/') ? { path: `${host}/.s.PGSQL.${port}` } : { host, port };
}

function urlThrough(serverUrl: string, port: number): string {
  const url = new URL(serverUrl);
  url.searchParams.delete('host');
  url.searchParams.delete('port');
  url.hostname = HOST;
  url.port = String(port);
  return url.href;
}

function listen(server: Server): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, HOST, () => {
      const address = server.address();
      resolve(typeof address === 'object' && address !== null ? address.port : 0);
    });
  });
}
