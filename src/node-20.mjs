/**
 * Needed for Node.js 20 only. When `engines` in package.json requires Node.js 22, delete this file and the
 * import of it in src/cli/packed-commands.ts and src/graphile/worker.mjs (threads share no globals, so each
 * needs it).
 *
 * Node.js has `navigator` from version 21 on. pg reads it to find out whether it runs on Cloudflare. If it
 * is missing, pg reads `Response`, for which Node.js loads its whole HTTP client. That takes a fifth of the
 * start of this program.
 */
if (!('navigator' in globalThis)) {
  Object.assign(globalThis, { navigator: { userAgent: `Node.js/${process.versions.node.split('.')[0]}` } });
}
