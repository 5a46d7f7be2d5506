#!/bin/sh
# The runs and reports of docs/findings-online.md, in its order.  Stop it at any time, and start it again in the same folder to go on: finished
# runs are skipped, and an unfinished one continues from its last checkpoint.
#
#     sh examples/online-campaign.sh        # from the root of the checkout
#
# About 13 hours of one core, half with the two jobs that it starts: 10.5 of training, as the runs of the page took on a machine that was also doing
# other work, and 2.5 of generating and scoring images.
#
#     the study, three seeds                  3.8 hours of training, 24 runs
#     its placebos, two seeds                 2.2                    12 runs (three of them had two threads)
#     two more advantage conventions          1.4                     6 runs
#     an equal number of network evaluations  1.8                    18 runs
#     Flow-GRPO on a flow model               1.0                     3 runs
#     over time                               0.3                     2 runs, and as much again for the images along the way
#
# The tables of gain and cost are made from the reports that are committed in docs/, among them the offline study's (examples/readme-study.toml); the
# last command draws docs/over-time.png again.
set -e
bench reward --scorer imagereward --model tiny --output rewards/frozen
bench run examples/online-study.toml --jobs 2
bench run examples/online-study.toml --placebo --algo tailorpo,spo,ddpo,flow-grpo,nft,apo --seeds 0,1 --jobs 2
bench run examples/online-conventions.toml --jobs 2
bench report --runs runs-online-study --format markdown
python docs/gain_and_cost.py docs/readme-study.json docs/online-study.json
bench run examples/online-equal-cost.toml --jobs 2
bench report --runs runs-online-equal-cost --format markdown
python docs/gain_and_cost.py docs/online-equal-cost.json
bench run examples/online-flow.toml --jobs 2
bench report --runs runs-online-flow --format markdown
bench run examples/online-curves.toml --jobs 2
python docs/over_time.py runs-online-curves docs/over-time.png
