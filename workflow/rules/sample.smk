rule sample:
    input:
        train="results/{study}/data/{problem}/train.h5",
        test="results/{study}/data/{problem}/test.h5",
        networks=networks,
    output:
        "results/{study}/samples/{problem}/{observation}/{run}-{percent}.h5",
    log:
        "results/{study}/logs/sample/{problem}-{observation}-{run}-{percent}.log",
    benchmark:
        "results/{study}/benchmarks/sample/{problem}-{observation}-{run}-{percent}.tsv"
    conda:
        "../../environment.yml"
    threads: study.threads
    resources:
        mem_mb=32000,
        runtime=1440,
        gpu=GPU,
        local_gpu=LOCAL_GPU,
    params:
        settings=settings("sample"),
        code=run_code("sample"),
    message:
        "{wildcards.problem}, {wildcards.observation}: sample {wildcards.run}, {wildcards.percent} %"
    shell:
        "logged {log} ddis sample --config results/{wildcards.study}/config.yaml --problem {wildcards.problem}"
        " --observation {wildcards.observation} --run {wildcards.run} --percent {wildcards.percent}"


rule tune_run:
    input:
        train="results/{study}/data/{problem}/train.h5",
        validation="results/{study}/data/{problem}/validation.h5",
        networks=networks,
    output:
        "results/{study}/tuning/{problem}/{observation}/{run}-{percent}.csv",
    log:
        "results/{study}/logs/tune/{problem}-{observation}-{run}-{percent}.log",
    benchmark:
        "results/{study}/benchmarks/tune/{problem}-{observation}-{run}-{percent}.tsv"
    conda:
        "../../environment.yml"
    threads: study.threads
    resources:
        mem_mb=32000,
        runtime=1440,
        gpu=GPU,
        local_gpu=LOCAL_GPU,
    params:
        settings=settings("tune"),
        code=run_code("tune"),
    message:
        "{wildcards.problem}, {wildcards.observation}: tune {wildcards.run}, {wildcards.percent} %"
    shell:
        "logged {log} ddis tune --config results/{wildcards.study}/config.yaml --problem {wildcards.problem}"
        " --observation {wildcards.observation} --run {wildcards.run} --percent {wildcards.percent}"
