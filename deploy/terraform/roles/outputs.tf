output "role_arns" {
  description = "Each region's mirror's role; with front-and-worker by the region with -front and -worker at its end."
  value       = { for name, role in aws_iam_role.mirror : name => role.arn }
}
