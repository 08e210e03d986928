import { defineCommand } from '../../src/cli/define-command.ts';
import { DONE } from '../../src/cli/exit-codes.ts';
import { withSignal } from '../../src/cli/signals.ts';

export const docs = defineCommand({
  name: 'docs',
  summary: "generate schema/, the typed calls and the README's diagram from the migrations",
  options: {},
  async run(output) {
    const { writeGeneratedFiles } = await import('../documents/generated-files.ts');
    for (const file of await withSignal(writeGeneratedFiles)) output.say(`Written: ${file}`);
    return DONE;
  },
});
