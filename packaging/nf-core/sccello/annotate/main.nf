process SCCELLO_ANNOTATE {
    tag "${meta.id}"
    label 'process_medium'

    conda "${moduleDir}/environment.yml"
    container "sccello-tools:cpu"

    input:
    tuple val(meta), path(h5ad)

    output:
    tuple val(meta), path("${prefix}.h5ad"), emit: h5ad
    tuple val(meta), path("${prefix}.json"), emit: summary
    path "versions.yml"                    , emit: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}_annotated"
    """
    export OMP_NUM_THREADS=${task.cpus}
    export SCCELLO_OFFLINE=1

    sccello --quiet annotate ${h5ad} --out ${prefix}.h5ad --json ${args} > ${prefix}.json

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        sccello-tools: \$(sccello --version | sed 's/.* //')
    END_VERSIONS
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}_annotated"
    """
    touch ${prefix}.h5ad ${prefix}.json

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        sccello-tools: stub
    END_VERSIONS
    """
}
