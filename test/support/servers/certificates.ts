import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { giveToServer } from '../../../src/testing/embedded/account.ts';

/** PEM files of a server whose certificate is for `localhost`, and not for 127.0.0.1. */
export interface Certificates {
  /** Certificate of the authority that signed the server's. */
  readonly authority: string;
  /** Certificate of an authority that did not. */
  readonly otherAuthority: string;
  /** Certificate and key of a client for the role `name`, signed by the server's authority. */
  client(name: string): { readonly certificate: string; readonly key: string };
  /** Settings that make a server offer TLS with its certificate. */
  readonly serverSettings: readonly string[];
  remove(): void;
}

/** A separate configuration, since the system's openssl.cnf may lack the sections for an authority. */
const CONFIGURATION = `
[req]
distinguished_name = name
x509_extensions = authority
[name]
[authority]
basicConstraints = critical, CA:true
[server]
subjectAltName = DNS:localhost
[client]
extendedKeyUsage = clientAuth
`;

export function hasOpenssl(): boolean {
  return spawnSync('openssl', ['version'], { stdio: 'ignore' }).status === 0;
}

export function makeCertificates(): Certificates {
  const folder = mkdtempSync(join(tmpdir(), 'fs-tls-'));
  const file = (name: string) => join(folder, name);
  // Readable for the server's account. The keys are restricted one by one.
  chmodSync(folder, 0o755);
  writeFileSync(file('openssl.cnf'), CONFIGURATION);
  const openssl = (...args: readonly string[]) =>
    execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' });
  const request = (name: string, subject: string, ...args: readonly string[]) =>
    openssl(
      ...['req', '-config', 'openssl.cnf', '-newkey', 'rsa:2048', '-nodes', '-subj', `/CN=${subject}`],
      ...['-keyout', `${name}.key`, ...args],
    );

  const issue = (name: string, subject: string, extensions: string) => {
    request(name, subject, '-new', '-out', `${name}.csr`);
    openssl(
      ...['x509', '-req', '-in', `${name}.csr`, '-days', '2', '-out', `${name}.crt`],
      ...['-CA', 'authority.crt', '-CAkey', 'authority.key', '-CAcreateserial'],
      ...['-extfile', 'openssl.cnf', '-extensions', extensions],
    );
  };

  request('authority', 'authority of the tests', '-x509', '-days', '2', '-out', 'authority.crt');
  request('other', 'another authority', '-x509', '-days', '2', '-out', 'other.crt');
  issue('server', 'localhost', 'server');
  // A server refuses a key that other accounts can read.
  chmodSync(file('server.key'), 0o600);
  giveToServer(file('server.key'));
  return {
    authority: file('authority.crt'),
    otherAuthority: file('other.crt'),
    client(name) {
      issue('client', name, 'client');
      return { certificate: file('client.crt'), key: file('client.key') };
    },
    serverSettings: [
      ...['ssl=on', `ssl_cert_file=${file('server.crt')}`, `ssl_key_file=${file('server.key')}`],
      `ssl_ca_file=${file('authority.crt')}`,
    ],
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}
