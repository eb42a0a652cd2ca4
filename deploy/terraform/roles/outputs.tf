output "role_arns" {
  description = "Each region's mirror's role."
  value       = { for r in var.target_regions : r => aws_iam_role.mirror[r].arn }
}
