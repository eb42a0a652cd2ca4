locals {
  alarmed = var.create_alarms ? var.target_regions : toset([])
  notify  = compact([var.alarm_topic_arn])
}

resource "aws_cloudwatch_metric_alarm" "dead_letters" {
  for_each = local.alarmed

  alarm_name          = "${var.name_prefix}-${each.key}-dead-letters"
  alarm_description   = "Push events for ${each.key} were given up. A sweep finds what they told of."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  dimensions          = { QueueName = aws_sqs_queue.dead_letters[each.key].name }
  statistic           = "Maximum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.notify
  ok_actions          = local.notify
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "age" {
  for_each = local.alarmed

  alarm_name          = "${var.name_prefix}-${each.key}-age"
  alarm_description   = "The mirror in ${each.key} is behind the pushes, or does not run."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateAgeOfOldestMessage"
  dimensions          = { QueueName = aws_sqs_queue.events[each.key].name }
  statistic           = "Maximum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.alarm_age
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.notify
  ok_actions          = local.notify
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "delivery" {
  for_each = local.alarmed

  alarm_name          = "${var.name_prefix}-${each.key}-delivery"
  alarm_description   = "EventBridge cannot send to the queue of ${each.key}: see the policies of queue and key."
  namespace           = "AWS/Events"
  metric_name         = "FailedInvocations"
  dimensions          = { RuleName = aws_cloudwatch_event_rule.pushes[each.key].name }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.notify
  ok_actions          = local.notify
  tags                = var.tags
}
