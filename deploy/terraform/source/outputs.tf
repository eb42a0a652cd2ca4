output "queue_urls" {
  description = "events.sqs of each region's mirror."
  value       = local.queue_urls
}

output "queue_arns" {
  description = "Each region's queue."
  value       = local.queue_arns
}

output "configurations" {
  description = "Each region's part of its mirror's configuration file."
  value = { for r in var.target_regions : r => <<-EOT
    mirrors:
    - source: {registry: ${local.account}.dkr.ecr.${local.region}.${local.suffix}}
      destination: {registry: ${local.mirror_account}.dkr.ecr.${r}.${local.suffix}}
      events: {sqs: "${local.queue_urls[r]}", shared: true}
      replication: {rules: [{repositories: ${jsonencode(length(var.repository_prefixes) == 0 ? ["**"] : [for p in var.repository_prefixes : "${p}**"])}}]}
    EOT
  }
}
