import { defineCommand } from '../../src/cli/define-command.ts';
import { DONE } from '../../src/cli/exit-codes.ts';
import { withSignal } from '../../src/cli/signals.ts';

export const docs = defineCommand({
  name: 'docs',
  summary: "write what is generated from the migrations: schema/, typed calls, the README's diagram",
  options: {},
  async run(output) {
    const { writeGeneratedFiles } = await import('../generated-files.ts');
    for (const file of await withSignal(writeGeneratedFiles)) output.say(`Written: ${file}`);
    return DONE;
  },
});
