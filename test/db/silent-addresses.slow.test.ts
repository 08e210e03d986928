import dns from 'node:dns';
import { createServer, isIPv6 } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  CANNOT_SEE,
  closeLater,
  LONG_STATEMENT,
  openAllWatched,
  openWatched,
  PATIENCE_MS,
  startBalancer,
  twoServersForFile,
} from '../support/servers/silence.ts';

const servers = twoServersForFile();

/** A name for these addresses, in this order. */
function nameOf(...addresses: readonly string[]): string {
  const name = `addresses-${names.size}.test`;
  names.set(name, addresses);
  return name;
}

const names = new Map<string, readonly string[]>();
const { lookup } = dns;
beforeAll(() => {
  const known = (
    name: string,
    options: dns.LookupAllOptions,
    done: (...found: readonly unknown[]) => void,
  ) => {
    const all = names.get(name)?.map((address) => ({ address, family: isIPv6(address) ? 6 : 4 }));
    if (all === undefined) Reflect.apply(lookup, dns, [name, options, done]);
    else process.nextTick(() => done(null, all));
  };
  // The sockets of Node find it there.
  dns.lookup = known as unknown as typeof dns.lookup;
});
afterAll(() => {
  dns.lookup = lookup;
});

test.concurrent.each<[string, readonly string[]]>([
  ['cannot be reached', ['2001:db8::1', '127.0.0.1']],
  ['does not answer', ['127.0.0.1', '127.0.0.2']],
])(
  'a statement that takes long is not ended by a balancer that drains, whose name has another address that %s',
  async (_, addresses) => {
    const balancer = await startBalancer(servers()[0].url);
    const later = new URL(balancer.url);
    later.hostname = nameOf(...addresses);
    const { client, warnings } = await openWatched(balancer.url, later.href);
    balancer.close();
    const silent = createServer().listen(Number(later.port), '127.0.0.2');
    closeLater(() => silent.close());
    expect(await client.query(LONG_STATEMENT)).toMatchObject({ rowCount: 1 });
    expect(warnings).toEqual([expect.stringMatching(CANNOT_SEE)]);
  },
  PATIENCE_MS,
);

test.concurrent(
  'connections that pass nothing on at two addresses of a name are all ended',
  async () => {
    const one = await startBalancer(servers()[0].url);
    const other = await startBalancer(servers()[0].url, '127.0.0.2', new URL(one.url).port);
    const later = new URL(one.url);
    later.hostname = nameOf('127.0.0.1', '127.0.0.2');
    const { clients } = await openAllWatched([one.url, other.url], later.href);
    for (const balancer of [one, other]) {
      balancer.holdOldConnections();
      balancer.divert(() => true);
    }
    const answers = await Promise.allSettled(clients.map((client) => client.query('select 1')));
    expect(answers).toMatchObject(Array(2).fill({ status: 'rejected', reason: { code: 'ETIMEDOUT' } }));
  },
  PATIENCE_MS,
);
