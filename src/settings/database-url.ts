import { SettingsError } from '../errors.ts';
import { paragraph } from '../text.ts';

/**
 * How TLS is used. `verify` checks the server's certificate and host name (what pg 8 does for the URL's
 * sslmode `prefer`, `require`, `verify-ca` and `verify-full`); `no-verify` encrypts without checking.
 * The other members are paths of PEM files.
 */
export interface TlsSettings {
  readonly mode: 'disable' | 'no-verify' | 'verify';
  readonly rootCertificate?: string;
  readonly certificate?: string;
  readonly key?: string;
}

/** The parts of a database URL. */
export interface DatabaseUrl {
  /** Host name, address, or the absolute path of the folder of the server's Unix socket. */
  readonly host?: string;
  readonly port?: number;
  readonly user?: string;
  readonly password?: string;
  readonly database: string;
  readonly tls?: TlsSettings;
  /** Server settings for the session, as in libpq's `options`. */
  readonly options?: string;
  readonly applicationName?: string;
}

const EXAMPLE = 'postgres://user:password@host:5432/database';

const TLS_MODES: ReadonlyMap<string, TlsSettings['mode']> = new Map([
  ['disable', 'disable'],
  ['no-verify', 'no-verify'],
  // pg 8 treats these four as the strictest of them.
  ['prefer', 'verify'],
  ['require', 'verify'],
  ['verify-ca', 'verify'],
  ['verify-full', 'verify'],
]);
const PARAMETERS = [
  'host',
  'port',
  'sslmode',
  'sslrootcert',
  'sslcert',
  'sslkey',
  'options',
  'application_name',
] as const;
type Parameter = (typeof PARAMETERS)[number];
type Parameters = ReadonlyMap<Parameter, string>;

/**
 * Parameters of libpq and other libraries. A message quotes no other names: they may be part of a password.
 */
const PARAMETERS_ELSEWHERE: ReadonlySet<string> = new Set([
  'ssl',
  'requiressl',
  'sslnegotiation',
  'sslpassword',
  'channel_binding',
  'gssencmode',
  'uselibpqcompat',
  'connect_timeout',
  'target_session_attrs',
  'pgbouncer',
  'schema',
  'connection_limit',
  'pool_timeout',
]);

/**
 * Splits a postgres:// URL into its parts. pg gets them one by one, so that no library prints a URL whose
 * password it could not parse. A Unix socket is written as `postgres:///database?host=/folder`.
 * @param variable The environment variable or option with the URL, for messages.
 * @throws {SettingsError} that names the variable and never quotes the value.
 */
export function parseDatabaseUrl(variable: string, text: string): DatabaseUrl {
  const { url, path } = readUrl(variable, text);
  const parameters = readParameters(variable, url.searchParams);
  const database = decode(variable, 'database name', path);
  if (database === '') {
    refuse(variable, `${variable} names no database. It must have the form ${EXAMPLE}.`);
  }
  const host = parameters.get('host') ?? decode(variable, 'host', url.hostname).replace(/^\[(.*)\]$/, '$1');
  if (host.includes(',')) refuseSeveralHosts(variable);
  if (url.port !== '' && parameters.has('port')) refuseTwice(variable, 'port');
  const ownPort = url.port === '' ? parameters.get('port') : url.port;
  // Read here, because pg ends the process for a PGPORT that is not a number.
  const port = ownPort === undefined ? readPort('PGPORT', process.env.PGPORT) : readPort(variable, ownPort);
  const user = decode(variable, 'user name', url.username);
  const password = decode(variable, 'password', url.password);
  const tls = readTls(variable, parameters);
  const options = parameters.get('options');
  const applicationName = parameters.get('application_name');
  return {
    database,
    ...(host !== '' && { host }),
    ...(port !== undefined && { port }),
    ...(user !== '' && { user }),
    ...(password !== '' && { password }),
    ...(tls !== undefined && { tls }),
    ...(options !== undefined && { options }),
    ...(applicationName !== undefined && { applicationName }),
  };
}

/**
 * The URL with another database, and with another user if one is given.
 * @param variable The environment variable or option with the URL, for messages.
 * @throws {SettingsError} that names the variable and never quotes the value.
 */
export function replaceInUrl(
  variable: string,
  text: string,
  { database, user, password }: Pick<DatabaseUrl, 'database' | 'user' | 'password'>,
): string {
  const { url } = readUrl(variable, text);
  // A URL without a host has no user either. pg would take the host from PGHOST.
  if (url.hostname === '') {
    if (!url.searchParams.has('host')) url.searchParams.set('host', process.env.PGHOST ?? 'localhost');
    url.hostname = 'localhost';
  }
  url.pathname = `/${encodeURIComponent(database)}`;
  if (user !== undefined) {
    url.username = encodeURIComponent(user);
    url.password = encodeURIComponent(password ?? '');
  }
  return url.href;
}

function readUrl(variable: string, text: string): { readonly url: URL; readonly path: string } {
  // libpq allows credentials without a host, for a socket that the query names. WHATWG's parser refuses that.
  const normalized = text.trim().replace(/^(postgres(?:ql)?:\/\/[^/?#]*@)\//, '$1localhost/');
  if (/^[a-z]+:\/\/(?:[^/?#]*@)?[^/?#@]*,[^/?#@]*(?:[/?#]|$)/.test(normalized)) refuseSeveralHosts(variable);
  if (/%00/.test(normalized))
    refuse(variable, `${variable} contains %00, which no value of Postgres can have. Remove it.`);
  let url: URL;
  try {
    url = new URL(normalized);
  } catch {
    // No cause: its message and its input property quote the value, including the password.
    refuse(
      variable,
      `${variable} is not a valid URL. It must have the form ${EXAMPLE};`,
      'in user and password, write characters such as @ : / # ? % percent-encoded',
      '(encodeURIComponent does it).',
    );
  }
  if (url.protocol !== 'postgres:' && url.protocol !== 'postgresql:') {
    refuse(variable, `${variable} does not begin with postgres://. It must have the form ${EXAMPLE}.`);
  }
  if (url.hash !== '') {
    refuse(
      variable,
      `${variable} contains a "#".`,
      'If it belongs to the password, write it as %23 (encodeURIComponent does it).',
    );
  }
  // If the password contains "/" or "?", the URL's host ends at that character. The rest of the password
  // would be shown as the database's name.
  if (`${url.pathname}${url.search}`.includes('@')) {
    refuse(
      variable,
      `${variable} contains an "@" after the host. In user and password, write characters such as / and ?`,
      'percent-encoded (encodeURIComponent does it); elsewhere write an "@" as %40.',
    );
  }
  // Not from the URL, which reads the names "." and ".." as steps of a path.
  const [, path = ''] = /^[^:]*:\/\/[^/?#]*\/([^?#]*)/.exec(normalized) ?? [];
  // A password after it would be shown as a part of the database's name.
  if (/[&;][^=]*=/.test(path)) {
    refuse(
      variable,
      `${variable} has a parameter that does not begin with "?".`,
      'Write "?" before the first parameter and "&" between parameters;',
      'in the name of the database, write "&" as %26 and ";" as %3B.',
    );
  }
  return { url, path };
}

/**
 * The parameters by name. If an unknown one were ignored, the connection could lack the protection that it
 * asks for. If one is repeated, libpq uses the last one, and other programs the first.
 */
function readParameters(variable: string, query: URLSearchParams): Parameters {
  const parameters = new Map<Parameter, string>();
  for (const [name, value] of query) {
    const parameter = PARAMETERS.find((known) => known === name);
    if (parameter === undefined) refuseParameter(variable, name);
    if (parameters.has(parameter)) refuseTwice(variable, `parameter ${parameter}`);
    parameters.set(parameter, value);
  }
  return parameters;
}

function refuseParameter(variable: string, name: string): never {
  const lower = name.toLowerCase();
  if (lower === 'user' || lower === 'password') {
    refuse(variable, `${variable} gives the ${lower} as a parameter. Write it before the host: ${EXAMPLE}.`);
  }
  const known = PARAMETERS.find((parameter) => parameter === lower);
  if (known !== undefined) {
    refuse(variable, `${variable} has the parameter "${name}". Write it as ${known}.`);
  }
  const what = PARAMETERS_ELSEWHERE.has(lower)
    ? `the unknown parameter "${name}"`
    : 'an unknown parameter, which is not shown here';
  refuse(
    variable,
    `${variable} has ${what}. Remove it, or use one of ${PARAMETERS.join(', ')}.`,
    'If another program needs it, set a separate URL for this one.',
  );
}

function refuse(variable: string, ...sentences: readonly string[]): never {
  throw new SettingsError(variable, paragraph(...sentences));
}

function refuseTwice(variable: string, what: string): never {
  refuse(variable, `${variable} has the ${what} twice. Remove one of them.`);
}

function refuseSeveralHosts(variable: string): never {
  refuse(variable, `${variable} names several hosts. Name one of them: ${EXAMPLE}.`);
}

function readPort(variable: string, text: string | undefined): number | undefined {
  if (text === undefined || (variable === 'PGPORT' && text === '')) return undefined;
  const port = Number(text);
  if (!/^\d+$/.test(text) || port < 1 || port > 65_535) {
    refuse(variable, `The port in ${variable} is not a number from 1 to 65535. Correct it.`);
  }
  return port;
}

/** TLS of a connection: as its URL has it, else PGSSLMODE. pg does not encrypt for unknown values. */
export function tlsOf({ tls }: Pick<DatabaseUrl, 'tls'>): TlsSettings | undefined {
  const name = process.env.PGSSLMODE ?? '';
  if (tls !== undefined || name.trim() === '') return tls;
  return { mode: readTlsMode('PGSSLMODE', 'PGSSLMODE', name) };
}

function readTlsMode(variable: string, what: string, name: string): TlsSettings['mode'] {
  return (
    TLS_MODES.get(name) ??
    refuse(variable, `${what} must be one of ${[...TLS_MODES.keys()].join(', ')}. Correct it.`)
  );
}

function readTls(variable: string, parameters: Parameters): TlsSettings | undefined {
  const name = parameters.get('sslmode');
  const mode = name === undefined ? undefined : readTlsMode(variable, `sslmode in ${variable}`, name);
  const rootCertificate = parameters.get('sslrootcert');
  const certificate = parameters.get('sslcert');
  const key = parameters.get('sslkey');
  if ((certificate === undefined) !== (key === undefined)) {
    const [given, missing] = key === undefined ? ['sslcert', 'sslkey'] : ['sslkey', 'sslcert'];
    refuse(variable, `${variable} has ${given} without ${missing}. Name both files.`);
  }
  if (mode === undefined && rootCertificate === undefined && certificate === undefined) return undefined;
  return {
    mode: mode ?? 'verify',
    ...(rootCertificate !== undefined && { rootCertificate }),
    ...(certificate !== undefined && { certificate }),
    ...(key !== undefined && { key }),
  };
}

function decode(variable: string, part: string, text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    refuse(
      variable,
      `The ${part} in ${variable} contains a "%" that is not followed by two hexadecimal digits.`,
      'Write a literal % as %25.',
    );
  }
}
