# ecr-mirror, in the account where the mirrors run: a role for each region's mirror, with what `ecr-mirror iam-policy` prints
# for it and no more. Roles are the same in all regions of an account.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

locals {
  account        = data.aws_caller_identity.current.account_id
  partition      = data.aws_partition.current.partition
  source_account = coalesce(var.source_account, local.account)

  source_repositories = "arn:${local.partition}:ecr:${var.source_region}:${local.source_account}:repository/"
  target_repositories = { for r in var.target_regions : r => "arn:${local.partition}:ecr:${r}:${local.account}:repository/" }
}

data "aws_iam_policy_document" "trust" {
  for_each = var.target_regions

  dynamic "statement" {
    for_each = var.runs_on == "irsa" ? [var.oidc_providers[each.key]] : []

    content {
      sid     = "Irsa"
      actions = ["sts:AssumeRoleWithWebIdentity"]

      principals {
        type        = "Federated"
        identifiers = ["arn:${local.partition}:iam::${local.account}:oidc-provider/${statement.value}"]
      }

      condition {
        test     = "StringEquals"
        variable = "${statement.value}:aud"
        values   = ["sts.amazonaws.com"]
      }

      condition {
        test     = "StringEquals"
        variable = "${statement.value}:sub"
        values   = ["system:serviceaccount:${var.service_account}"]
      }
    }
  }

  dynamic "statement" {
    for_each = var.runs_on == "pod-identity" ? ["pods.eks.amazonaws.com"] : []

    content {
      sid     = "PodIdentity"
      actions = ["sts:AssumeRole", "sts:TagSession"]

      principals {
        type        = "Service"
        identifiers = [statement.value]
      }
    }
  }

  dynamic "statement" {
    for_each = var.runs_on == "ecs" ? ["ecs-tasks.amazonaws.com"] : []

    content {
      sid     = "Tasks"
      actions = ["sts:AssumeRole"]

      principals {
        type        = "Service"
        identifiers = [statement.value]
      }

      condition {
        test     = "StringEquals"
        variable = "aws:SourceAccount"
        values   = [local.account]
      }
    }
  }

  dynamic "statement" {
    for_each = var.runs_on == "ec2" ? ["ec2.${data.aws_partition.current.dns_suffix}"] : []

    content {
      sid     = "Instances"
      actions = ["sts:AssumeRole"]

      principals {
        type        = "Service"
        identifiers = [statement.value]
      }
    }
  }
}

data "aws_iam_policy_document" "mirror" {
  for_each = var.target_regions

  statement {
    sid       = "Read"
    actions   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:ListImages"]
    resources = ["${local.source_repositories}*", "${local.target_repositories[each.key]}*"]
  }

  statement {
    sid       = "Compare"
    actions   = ["ecr:DescribeImages"]
    resources = ["${local.source_repositories}*", "${local.target_repositories[each.key]}*"]
  }

  statement {
    sid       = "ListRepositories"
    actions   = ["ecr:DescribeRepositories"]
    resources = ["${local.source_repositories}*", "${local.target_repositories[each.key]}*"]
  }

  statement {
    sid       = "Write"
    actions   = ["ecr:CompleteLayerUpload", "ecr:CreateRepository", "ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:UploadLayerPart"]
    resources = [for p in length(var.repository_prefixes) == 0 ? [""] : var.repository_prefixes : "${local.target_repositories[each.key]}${p}*"]
  }

  statement {
    sid       = "Mount"
    actions   = ["ecr:GetAccountSetting", "ecr:GetAuthorizationToken"]
    resources = ["*"]
  }

  statement {
    sid       = "Queue"
    actions   = ["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:ReceiveMessage"]
    resources = ["arn:${local.partition}:sqs:${var.source_region}:${local.source_account}:${var.name_prefix}-${each.key}"]
  }

  dynamic "statement" {
    for_each = compact([var.kms_key_arn])

    content {
      sid       = "QueueKey"
      actions   = ["kms:Decrypt"]
      resources = [statement.value]
    }
  }
}

resource "aws_iam_role" "mirror" {
  for_each = var.target_regions

  name                 = "${var.name_prefix}-${each.key}"
  description          = "ecr-mirror in ${each.key}"
  assume_role_policy   = data.aws_iam_policy_document.trust[each.key].json
  permissions_boundary = var.permissions_boundary
  tags                 = var.tags
}

resource "aws_iam_role_policy" "mirror" {
  for_each = var.target_regions

  name   = "ecr-mirror"
  role   = aws_iam_role.mirror[each.key].name
  policy = data.aws_iam_policy_document.mirror[each.key].json
}
