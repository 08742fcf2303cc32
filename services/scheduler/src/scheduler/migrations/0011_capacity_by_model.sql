-- Capacity is asked for by model; the provisioner shares it out among the model's deployments.
alter table scheduler.scaling drop column deployment_id;
alter table scheduler.scaling add primary key (model);
