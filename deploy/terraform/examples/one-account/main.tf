# Queues and roles in one account: mirrors in four regions.

terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.30, < 7.0"
    }
  }
}

provider "aws" {
  region = "us-west-2"
}

locals {
  target_regions = ["eu-central-1", "us-east-1", "ap-southeast-1", "eu-west-1"]
}

module "source" {
  source = "../../source"

  target_regions      = local.target_regions
  repository_prefixes = ["team/", "base-"]
}

module "roles" {
  source = "../../roles"

  target_regions      = local.target_regions
  source_region       = "us-west-2"
  repository_prefixes = ["team/", "base-"]
  runs_on             = "pod-identity"
}

output "configurations" {
  description = "What each region's mirror is configured with."
  value       = module.source.configurations
}

output "role_arns" {
  description = "What each region's mirror runs as."
  value       = module.roles.role_arns
}
