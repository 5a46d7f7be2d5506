#!/bin/sh
# The runs, tables and pictures of docs/findings.md, docs/placebo.md and the README, in their order.  Stop it at any time, and start it again in the
# same folder to go on: finished runs are skipped, and an unfinished one continues from its last checkpoint.
#
#     sh examples/offline-campaign.sh       # from the root of the checkout
#
# About 14 hours of one core, half with the two jobs that it starts, as the runs of the pages took on a machine that was also doing other work:
#
#     the README's study, three seeds         5.0 hours of training, 36 runs, and 1.6 of generating and scoring
#     the study of placebos, five seeds       5.5                    40 runs, and 1.8
#
# The recipes were chosen before, by examples/tiny-sweep.toml.
set -e
bench run examples/readme-study.toml --jobs 2
bench report --format markdown
python docs/comparison.py runs docs/comparison.png
python docs/reliability.py runs
bench run examples/placebo-study.toml --jobs 2
bench report --runs runs-placebo --format markdown
python docs/placebo_gains.py runs-placebo dpo inpo ipo
python docs/placebo_gains.py runs-placebo sft
