# ecr-mirror, in the account where the mirrors run: a role for each region's mirror, or one for its fronts and one for its
# workers, with what `ecr-mirror iam-policy` prints for it and no more. Roles are the same in all regions of an account.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

locals {
  account        = data.aws_caller_identity.current.account_id
  partition      = data.aws_partition.current.partition
  source_account = coalesce(var.source_account, local.account)

  source_repositories = "arn:${local.partition}:ecr:${var.source_region}:${local.source_account}:repository/"
  # By the end of the role's name. A front only reads, and sends what it misses to the queue; the others write.
  mirrors = { for pair in setproduct(var.target_regions, var.roles == "one" ? [""] : ["-front", "-worker"]) : "${pair[0]}${pair[1]}" => {
    region  = pair[0]
    lists   = pair[1] != "-worker"
    writes  = pair[1] != "-front"
    account = "${var.service_account}${pair[1] == "-worker" ? "-worker" : ""}"
  } }
  target_repositories = { for r in var.target_regions : r => "arn:${local.partition}:ecr:${r}:${local.account}:repository/" }
}

data "aws_iam_policy_document" "trust" {
  for_each = local.mirrors

  dynamic "statement" {
    for_each = var.runs_on == "irsa" ? [var.oidc_providers[each.value.region]] : []

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
        values   = ["system:serviceaccount:${each.value.account}"]
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
  for_each = local.mirrors

  statement {
    sid       = "Read"
    actions   = concat(["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"], each.value.lists ? ["ecr:ListImages"] : [])
    resources = ["${local.source_repositories}*", "${local.target_repositories[each.value.region]}*"]
  }

  dynamic "statement" {
    for_each = each.value.writes ? { Compare = "ecr:DescribeImages", ListRepositories = "ecr:DescribeRepositories" } : {}

    content {
      sid       = statement.key
      actions   = [statement.value]
      resources = ["${local.source_repositories}*", "${local.target_repositories[each.value.region]}*"]
    }
  }

  dynamic "statement" {
    for_each = each.value.writes ? [length(var.repository_prefixes) == 0 ? [""] : var.repository_prefixes] : []

    content {
      sid       = "Write"
      actions   = ["ecr:CompleteLayerUpload", "ecr:CreateRepository", "ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:UploadLayerPart"]
      resources = [for p in statement.value : "${local.target_repositories[each.value.region]}${p}*"]
    }
  }

  dynamic "statement" {
    for_each = each.value.writes ? ["*"] : []

    content {
      sid       = "Mount"
      actions   = ["ecr:GetAccountSetting", "ecr:GetAuthorizationToken"]
      resources = [statement.value]
    }
  }

  statement {
    sid       = "Queue"
    actions   = each.value.writes ? ["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:ReceiveMessage"] : ["sqs:SendMessage"]
    resources = ["arn:${local.partition}:sqs:${var.source_region}:${local.source_account}:${var.name_prefix}-${each.value.region}"]
  }

  dynamic "statement" {
    for_each = compact([var.kms_key_arn])

    content {
      sid       = "QueueKey"
      actions   = each.value.writes ? ["kms:Decrypt"] : ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [statement.value]
    }
  }
}

resource "aws_iam_role" "mirror" {
  for_each = local.mirrors

  name                 = "${var.name_prefix}-${each.key}"
  description          = each.value.writes ? "ecr-mirror in ${each.value.region}" : "ecr-mirror's fronts in ${each.value.region}"
  assume_role_policy   = data.aws_iam_policy_document.trust[each.key].json
  permissions_boundary = var.permissions_boundary
  tags                 = var.tags
}

resource "aws_iam_role_policy" "mirror" {
  for_each = local.mirrors

  name   = "ecr-mirror"
  role   = aws_iam_role.mirror[each.key].name
  policy = data.aws_iam_policy_document.mirror[each.key].json
}
