"""Run by the Python that has vLLM: commands as JSON lines on stdin → what vLLM's own parser makes of each, on stdout.

With `python -P`: a file beside this one is called `vllm`, too.
"""

import json
import sys

from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.utils.argparse_utils import FlexibleArgumentParser

parser = FlexibleArgumentParser()
ServeSubcommand().subparser_init(parser.add_subparsers(required=True))
for line in sys.stdin:
    found = vars(parser.parse_args(json.loads(line)[1:]))
    print(json.dumps(found, default=str))
