# Images are pushed in one account, and mirrored into another.

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
  region  = "us-west-2"
  profile = "builds"
}

provider "aws" {
  alias   = "mirrors"
  region  = "us-west-2"
  profile = "mirrors"
}

data "aws_caller_identity" "builds" {}

data "aws_caller_identity" "mirrors" {
  provider = aws.mirrors
}

locals {
  target_regions = ["eu-central-1", "ap-southeast-1"]
}

module "source" {
  source = "../../source"

  target_regions = local.target_regions
  mirror_account = data.aws_caller_identity.mirrors.account_id
}

module "roles" {
  source    = "../../roles"
  providers = { aws = aws.mirrors }

  target_regions = local.target_regions
  source_account = data.aws_caller_identity.builds.account_id
  source_region  = "us-west-2"
  runs_on        = "irsa"
  oidc_providers = {
    eu-central-1   = "oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLE"
    ap-southeast-1 = "oidc.eks.ap-southeast-1.amazonaws.com/id/EXAMPLE"
  }
}

output "configurations" {
  description = "What each region's mirror is configured with."
  value       = module.source.configurations
}

output "role_arns" {
  description = "What each region's mirror runs as."
  value       = module.roles.role_arns
}
