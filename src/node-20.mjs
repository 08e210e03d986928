/**
 * What exists for Node.js 20 alone. When `engines` in package.json asks for Node.js 22, delete this file and the import
 * of it in src/cli/packed-commands.ts and src/graphile/worker.mjs: threads share no globals, so each needs it.
 *
 * Node.js has `navigator` from version 21 on. pg looks at it to find out whether it runs at Cloudflare; where it is
 * missing, pg asks for `Response`, and Node.js loads its whole HTTP client, a fifth of the start of this program.
 */
if (!('navigator' in globalThis)) {
  Object.assign(globalThis, { navigator: { userAgent: `Node.js/${process.versions.node.split('.')[0]}` } });
}
