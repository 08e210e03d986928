/**
 * What Node.js has by itself from version 21 on. pg asks it whether it runs at Cloudflare, and where it is missing, a
 * Response: for that one Node.js loads its whole HTTP client, a fifth of what this program takes to start.
 */
if (!('navigator' in globalThis)) {
  Object.assign(globalThis, { navigator: { userAgent: `Node.js/${process.versions.node.split('.')[0]}` } });
}
