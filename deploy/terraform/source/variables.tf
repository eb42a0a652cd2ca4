variable "target_regions" {
  description = "The regions that have a mirror. One that is taken out again loses its queue."
  type        = set(string)

  validation {
    condition     = length(var.target_regions) > 0 && alltrue([for r in var.target_regions : can(regex("^[a-z]{2,4}(-[a-z]+){1,3}-[0-9]{1,2}$", r))])
    error_message = "Region codes, like eu-central-1."
  }
}

variable "name_prefix" {
  description = "What the names of all resources begin with. The same as in the module roles."
  type        = string
  default     = "ecr-mirror"

  validation {
    condition     = can(regex("^[A-Za-z][A-Za-z0-9-]{0,30}$", var.name_prefix))
    error_message = "A letter, and up to 30 letters, digits and hyphens."
  }
}

variable "repository_prefixes" {
  description = "Beginnings of the names of the repositories that are replicated. None: all."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for p in var.repository_prefixes : can(regex("^[a-z0-9][a-z0-9._/-]*$", p))])
    error_message = "Beginnings of repository names, like team/."
  }
}

variable "mirror_account" {
  description = "The account of the mirrors and their roles, if it is not this one."
  type        = string
  default     = null

  validation {
    condition     = can(regex("^[0-9]{12}$", coalesce(var.mirror_account, "000000000000")))
    error_message = "An account has twelve digits."
  }
}

variable "roles" {
  description = "One role for all processes of a mirror (one), or one for fronts and one for workers (front-and-worker)."
  type        = string
  default     = "one"

  validation {
    condition     = contains(["one", "front-and-worker"], var.roles)
    error_message = "one or front-and-worker."
  }
}

variable "create_registry_policy" {
  description = "Whether to write the registry policy by which mirror_account reads images. A registry has one policy: with false, add to yours what `ecr-mirror iam-policy` prints."
  type        = bool
  default     = true
}

variable "kms_key_arn" {
  description = "A key of your own for the queues, whose policy lets events.amazonaws.com use it. None: SQS's own."
  type        = string
  default     = null
}

variable "create_alarms" {
  description = "Whether to watch queues and rules: three alarms for each region."
  type        = bool
  default     = true
}

variable "alarm_topic_arn" {
  description = "The SNS topic that alarms notify."
  type        = string
  default     = null
}

variable "alarm_age" {
  description = "For how many seconds an event may wait before the alarm."
  type        = number
  default     = 900

  validation {
    condition     = var.alarm_age >= 60
    error_message = "At least 60 seconds."
  }
}

variable "tags" {
  description = "Tags of all resources."
  type        = map(string)
  default     = {}
}
