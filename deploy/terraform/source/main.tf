# ecr-mirror, in the account and region where images are pushed: for every target region a queue of push events, its
# dead-letter queue, the EventBridge rule that fills it, and alarms.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.id
  suffix    = data.aws_partition.current.dns_suffix

  mirror_account = coalesce(var.mirror_account, local.account)
  other_account  = local.mirror_account != local.account

  # What each role of a mirror may do with the images and the queue here, if it is of another account.
  reads = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
  may = { for kind, may in {
    Mirror = {
      suffix   = ""
      queue    = ["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:ReceiveMessage"]
      registry = { Read = concat(local.reads, ["ecr:ListImages"]), Compare = ["ecr:DescribeImages"], ListRepositories = ["ecr:DescribeRepositories"] }
    }
    Worker = {
      suffix   = "-worker"
      queue    = ["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:ReceiveMessage"]
      registry = { Read = local.reads, Compare = ["ecr:DescribeImages"], ListRepositories = ["ecr:DescribeRepositories"] }
    }
    Front = {
      suffix   = "-front"
      queue    = ["sqs:SendMessage"]
      registry = { Read = concat(local.reads, ["ecr:ListImages"]) }
    }
  } : kind => may if local.other_account && contains(var.roles == "one" ? ["Mirror"] : ["Worker", "Front"], kind) }
  registry_statements = merge([for kind, may in local.may : { for sid, actions in may.registry : "${kind}${sid}" => { suffix = may.suffix, actions = actions } }]...)

  # By name, so that a plan shows whole policies.
  queue_arns       = { for r in var.target_regions : r => "arn:${local.partition}:sqs:${local.region}:${local.account}:${var.name_prefix}-${r}" }
  dead_letter_arns = { for r, arn in local.queue_arns : r => "${arn}-dead-letters" }
  rule_arns        = { for r in var.target_regions : r => "arn:${local.partition}:events:${local.region}:${local.account}:rule/${var.name_prefix}-${r}" }
  queue_urls       = { for r in var.target_regions : r => "https://sqs.${local.region}.${local.suffix}/${local.account}/${var.name_prefix}-${r}" }
}

resource "aws_sqs_queue" "events" {
  for_each = var.target_regions

  name                      = "${var.name_prefix}-${each.key}"
  message_retention_seconds = 1209600
  # A mirror that works on a message hides it for a minute at a time, by itself.
  visibility_timeout_seconds = 60
  sqs_managed_sse_enabled    = var.kms_key_arn == null ? true : null
  kms_master_key_id          = var.kms_key_arn
  tags                       = var.tags
}

# What was given up, and what EventBridge could not deliver within a day.
resource "aws_sqs_queue" "dead_letters" {
  for_each = var.target_regions

  name                      = "${var.name_prefix}-${each.key}-dead-letters"
  message_retention_seconds = 1209600
  sqs_managed_sse_enabled   = var.kms_key_arn == null ? true : null
  kms_master_key_id         = var.kms_key_arn
  tags                      = var.tags
}

# What a mirror cannot read it deletes, and keeps as a dead letter of its own. Others come again when mirrors are stopped,
# killed or out of disk: a hundred times is hours of that.
resource "aws_sqs_queue_redrive_policy" "events" {
  for_each = var.target_regions

  queue_url = aws_sqs_queue.events[each.key].url
  redrive_policy = jsonencode({
    deadLetterTargetArn = local.dead_letter_arns[each.key]
    maxReceiveCount     = 100
  })

  depends_on = [aws_sqs_queue.dead_letters]
}

resource "aws_sqs_queue_redrive_allow_policy" "dead_letters" {
  for_each = var.target_regions

  queue_url = aws_sqs_queue.dead_letters[each.key].url
  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [local.queue_arns[each.key]]
  })
}

data "aws_iam_policy_document" "queue" {
  for_each = var.target_regions

  dynamic "statement" {
    for_each = local.may

    content {
      sid       = statement.key
      actions   = statement.value.queue
      resources = [local.queue_arns[each.key]]

      principals {
        type        = "AWS"
        identifiers = ["arn:${local.partition}:iam::${local.mirror_account}:root"]
      }

      condition {
        test     = "ArnLike"
        variable = "aws:PrincipalArn"
        values   = ["arn:${local.partition}:iam::${local.mirror_account}:role/${var.name_prefix}-${each.key}${statement.value.suffix}"]
      }
    }
  }

  statement {
    sid       = "Events"
    actions   = ["sqs:SendMessage"]
    resources = [local.queue_arns[each.key]]

    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [local.rule_arns[each.key]]
    }
  }
}

resource "aws_sqs_queue_policy" "events" {
  for_each = var.target_regions

  queue_url = aws_sqs_queue.events[each.key].url
  policy    = data.aws_iam_policy_document.queue[each.key].json
}

data "aws_iam_policy_document" "dead_letters" {
  for_each = var.target_regions

  statement {
    sid       = "Events"
    actions   = ["sqs:SendMessage"]
    resources = [local.dead_letter_arns[each.key]]

    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [local.rule_arns[each.key]]
    }
  }
}

resource "aws_sqs_queue_policy" "dead_letters" {
  for_each = var.target_regions

  queue_url = aws_sqs_queue.dead_letters[each.key].url
  policy    = data.aws_iam_policy_document.dead_letters[each.key].json
}

# A rule has at most five targets: every target region has its own rule.
resource "aws_cloudwatch_event_rule" "pushes" {
  for_each = var.target_regions

  name        = "${var.name_prefix}-${each.key}"
  description = "Pushes to ECR, for the mirror in ${each.key}"
  tags        = var.tags
  event_pattern = jsonencode(merge(
    { source = ["aws.ecr"], detail-type = ["ECR Image Action", "ECR Referrer Action"] },
    length(var.repository_prefixes) == 0 ? {} : { detail = { repository-name = [for p in var.repository_prefixes : { prefix = p }] } },
  ))
}

resource "aws_cloudwatch_event_target" "queue" {
  for_each = var.target_regions

  rule      = aws_cloudwatch_event_rule.pushes[each.key].name
  target_id = "queue"
  arn       = local.queue_arns[each.key]

  dead_letter_config {
    arn = local.dead_letter_arns[each.key]
  }

  depends_on = [aws_sqs_queue_policy.events, aws_sqs_queue_policy.dead_letters]
}

# The mirrors of another account read what is pushed here.
data "aws_iam_policy_document" "registry" {
  dynamic "statement" {
    for_each = local.registry_statements

    content {
      sid       = statement.key
      actions   = statement.value.actions
      resources = ["arn:${local.partition}:ecr:${local.region}:${local.account}:repository/*"]

      principals {
        type        = "AWS"
        identifiers = ["arn:${local.partition}:iam::${local.mirror_account}:root"]
      }

      condition {
        test     = "ArnLike"
        variable = "aws:PrincipalArn"
        values   = ["arn:${local.partition}:iam::${local.mirror_account}:role/${var.name_prefix}-*${statement.value.suffix}"]
      }
    }
  }
}

resource "aws_ecr_registry_policy" "mirrors" {
  count = local.other_account && var.create_registry_policy ? 1 : 0

  policy = data.aws_iam_policy_document.registry.json
}
